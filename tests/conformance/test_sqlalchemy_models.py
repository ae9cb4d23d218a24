"""The tables as mapped classes: joined with an application's own models, and safe to write to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, create_engine, func, select
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, foreign, mapped_column, relationship
from sqlalchemy.orm.exc import StaleDataError

from inturn.errors import SessionConflictError
from inturn.persistence import SQLAlchemyAdapter, models
from inturn.persistence.models import MessageMixin, SessionMixin, TurnMixin, agent_tables
from inturn.session import Message, SessionState, TurnRecord, create_session


class Base(DeclarativeBase):
    """The application's own base."""


NAMES: dict[str, Any] = {
    "tables": {"sessions": "custom_sessions", "messages": "custom_messages"},
    "field_mappings": {"sessions": {"user_id": "userId", "created_at": "createdAt"}},
}
TABLES = agent_tables(Base.metadata, **NAMES)


class AgentSession(SessionMixin, Base):
    __table__ = TABLES.sessions


class AgentMessage(MessageMixin, Base):
    __table__ = TABLES.messages


class AgentTurn(TurnMixin, Base):
    __table__ = TABLES.turns


class User(Base):
    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    sessions: Mapped[list[AgentSession]] = relationship(
        primaryjoin=lambda: foreign(AgentSession.user_id) == User.id, viewonly=True
    )


class Rating(Base):
    __tablename__ = "ratings"

    session_id: Mapped[str] = mapped_column(ForeignKey(TABLES.sessions.c.id), primary_key=True)
    stars: Mapped[int]
    session: Mapped[AgentSession] = relationship()


@pytest.fixture(params=["postgresql", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "postgresql":
        schema_url: str = request.getfixturevalue("schema_url")
        engine = create_engine(f"postgresql+psycopg://{schema_url.partition('://')[2]}")
    else:
        engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def adapter(engine: Engine) -> SQLAlchemyAdapter:
    adapter = SQLAlchemyAdapter(engine, **NAMES)
    adapter.initialize()
    return adapter


def talk(adapter: SQLAlchemyAdapter, session: SessionState, *contents: str) -> SessionState:
    """Commit a turn of messages."""
    some = [Message(session_id=session.id, role="user", content=content) for content in contents]
    turn = TurnRecord(session_id=session.id, turn_id=f"turn {session.version}", result={"n": len(some)})
    return adapter.commit(session, some, expected_version=session.version, turn=turn).session


def test_an_applications_users_are_joined_with_their_sessions(
    engine: Engine, adapter: SQLAlchemyAdapter
) -> None:
    with Session(engine) as database:
        database.add_all([User(id="u1", name="Ann"), User(id="u2", name="Bob")])
        database.commit()
    talk(adapter, create_session(user_id="u1", data={"city": "Lagos"}), "hello", "again")
    talk(adapter, create_session(user_id="u1"), "other")
    talk(adapter, create_session(), "nobody's")
    with Session(engine) as database:
        count = (
            select(User.name, func.count(AgentMessage.id))
            .join(AgentSession, AgentSession.user_id == User.id)
            .join(AgentSession.messages)
            .group_by(User.name)
        )
        assert list(map(tuple, database.execute(count))) == [("Ann", 3)]
        ann = database.get_one(User, "u1")
        cities = {session.collected_data.get("city") for session in ann.sessions}
        assert cities == {"Lagos", None}
        assert database.get_one(User, "u2").sessions == []


def test_a_session_has_its_messages_in_order_and_its_turns(
    engine: Engine, adapter: SQLAlchemyAdapter
) -> None:
    session = talk(adapter, talk(adapter, create_session(), "1", "2"), "3")
    with Session(engine) as database:
        found = database.get_one(AgentSession, session.id)
        assert [message.content for message in found.messages] == ["1", "2", "3"]
        assert {turn.turn_id: turn.result for turn in found.turns} == {
            "turn 0": {"n": 2},
            "turn 1": {"n": 1},
        }
        assert found.messages[0].session is found.turns[0].session is found
        assert found.created_at == session.created_at
        assert found.created_at.utcoffset() == timedelta(0)


def test_an_applications_tables_may_refer_to_ours(engine: Engine, adapter: SQLAlchemyAdapter) -> None:
    session = talk(adapter, create_session(), "thanks")
    with Session(engine) as database:
        database.add(Rating(session_id=session.id, stars=5))
        database.commit()
        rating = database.scalars(select(Rating)).one()
        assert rating.session.messages[0].content == "thanks"


def test_what_the_orm_writes_counts_as_a_commit(engine: Engine, adapter: SQLAlchemyAdapter) -> None:
    """Whoever had loaded the session before meets a conflict, on either side."""
    session = talk(adapter, create_session(), "1")
    with Session(engine, expire_on_commit=False) as database:
        mine = database.get_one(AgentSession, session.id)
        mine.status = "abandoned"
        database.commit()
        assert mine.version == 2
        with pytest.raises(SessionConflictError):
            talk(adapter, session, "2")
        found = adapter.load(session.id)
        assert found is not None
        assert (found.session.status, found.session.version) == ("abandoned", 2)
        talk(adapter, found.session, "2")
        mine.status = "completed"
        with pytest.raises(StaleDataError):
            database.commit()


def test_deleting_a_session_takes_its_rows_along(engine: Engine, adapter: SQLAlchemyAdapter) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite follows foreign keys only where the application turns that on")
    session = talk(adapter, create_session(), "1")
    with Session(engine) as database:
        database.delete(database.get_one(AgentSession, session.id))
        database.commit()
        assert database.scalars(select(AgentMessage)).all() == []
    assert adapter.load(session.id) is None


def test_a_time_without_a_zone_is_refused(engine: Engine) -> None:
    with Session(engine) as database, pytest.raises(StatementError, match="zone"):
        database.scalars(select(AgentSession).where(AgentSession.created_at < datetime(2024, 1, 1))).all()
    with Session(engine) as database:
        query = select(AgentSession).where(AgentSession.created_at < datetime(2024, 1, 1, tzinfo=UTC))
        assert database.scalars(query).all() == []


def test_rows_that_the_orm_adds_have_the_defaults(engine: Engine, adapter: SQLAlchemyAdapter) -> None:
    with Session(engine) as database:
        database.add(AgentSession(id="added"))
        database.commit()
    found = adapter.load("added")
    assert found is not None
    assert (found.session.status, found.session.version, found.session.data) == ("active", 1, {})
    assert abs(found.session.created_at - datetime.now(UTC)) < timedelta(minutes=5)
    talk(adapter, found.session, "hello")


def test_the_ready_classes_are_over_the_usual_tables(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    with SQLAlchemyAdapter(engine) as adapter, Session(engine) as database:
        session = talk(adapter, create_session(data={"a": [1]}), "hello")
        query = (
            select(models.AgentSession).join(models.AgentMessage).where(models.AgentMessage.role == "user")
        )
        found = database.scalars(query).one()
        assert (found.id, found.collected_data) == (session.id, {"a": [1]})
        assert [message.content for message in found.messages] == ["hello"]
        assert [turn.session.id for turn in database.scalars(select(models.AgentTurn))] == [session.id]
    engine.dispose()
