"""The schema: one for all adapters, whoever creates it; older tables are adopted with all their rows."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, inspect, text
from typer.testing import CliRunner

from inturn.cli import app
from inturn.errors import ConfigurationError, StoreError
from inturn.persistence import (
    MessageQuery,
    PersistenceAdapter,
    SessionQuery,
    SQLAlchemyAdapter,
    SQLiteAdapter,
    Target,
    open_adapter,
)
from inturn.persistence.schema import current, upgrade
from inturn.session import Message, TurnRecord, create_session
from tests.conformance.scripts import next_line, started_script
from tests.foreign_tables import check_adopted, statements

COMPLETE = ("agent_messages", "agent_sessions", "agent_turns")


@pytest.fixture
def postgresql(database_url: str) -> Iterator[str]:
    """The URL of an empty schema of PostgreSQL."""
    name = f"inturn_test_{secrets.token_hex(4)}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
        yield f"{database_url}{'&' if '?' in database_url else '?'}options=-csearch_path%3D{name}"
        connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, as the adapters of its own take it."""
    if request.param == "postgresql":
        empty: str = request.getfixturevalue("postgresql")
        return empty
    return f"sqlite:///{tmp_path}/sessions.db"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(for_sqlalchemy(url))
    yield engine
    engine.dispose()


def for_sqlalchemy(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{'postgresql+psycopg' if scheme.startswith('postgres') else scheme}://{rest}"


def described(engine: Engine) -> dict[str, Any]:
    """All that matters of the tables. Not what SQLite makes of times that nobody gives, for it has none."""
    found: dict[str, Any] = {}
    inspector = inspect(engine)
    for table in sorted(inspector.get_table_names()):
        if table.endswith("_schema"):
            continue
        columns = {}
        for column in inspector.get_columns(table):
            default = (column["default"] or "").replace("::bigint", "").replace("'", "")
            if engine.dialect.name == "sqlite" and column["name"].endswith("_at"):
                default = ""
            kind = repr(column["type"])
            columns[column["name"]] = (kind, bool(column["nullable"]), default)
        found[table] = {
            "columns": columns,
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "foreign": foreign_keys(engine, table),
            "indexes": sorted(
                (str(index["name"]), index["column_names"], bool(index["unique"]))
                for index in inspector.get_indexes(table)
            ),
        }
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            partial = "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()"
        else:
            partial = "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        found["partial"] = [
            line.partition("WHERE ")[2].strip("()")
            for line in connection.scalars(text(partial))
            if "WHERE" in line
        ]
    return found


def foreign_keys(engine: Engine, table: str) -> list[tuple[str, str, str | None]]:
    """Column, table referred to and what a deletion there does."""
    if engine.dialect.name == "sqlite":
        # SQLAlchemy reads the words of CREATE TABLE, and not all of them.
        with engine.connect() as connection:
            keys = connection.exec_driver_sql(f"PRAGMA foreign_key_list({table})").mappings()
            return [(key["from"], key["table"], key["on_delete"]) for key in keys]
    return [
        (key["constrained_columns"][0], key["referred_table"], key["options"].get("ondelete"))
        for key in inspect(engine).get_foreign_keys(table)
    ]


def drop_all(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in ("agent_turns", "agent_messages", "agent_sessions", "agent_sessions_schema"):
            connection.execute(text(f"DROP TABLE IF EXISTS {table}"))


def make_foreign(engine: Engine) -> None:
    with engine.begin() as connection:
        for statement in statements(engine.dialect.name):
            connection.exec_driver_sql(statement)


def uses(adapter: PersistenceAdapter) -> None:
    """Everything an adapter does with its tables, once."""
    session = create_session(user_id="somebody", data={"a": [1]})
    turn = TurnRecord(session_id=session.id, turn_id="t", result={"b": 2})
    said = Message(session_id=session.id, user_id="somebody", role="user", content="hi", event={"c": 3})
    committed = adapter.commit(session, [said], expected_version=0, turn=turn)
    assert adapter.load(session.id, last_messages=5, turn_id="t") == committed[:3]
    assert adapter.find_sessions(SessionQuery(user_id="somebody")).items == [committed.session]
    assert adapter.find_messages(MessageQuery(user_id="somebody")).items == committed.messages
    assert adapter.delete_sessions([Target(session.id, 1)]) == [session.id]


class TestOneSchema:
    def test_three_ways_make_the_same_schema(self, url: str, engine: Engine) -> None:
        """By migrations, by the database's own adapter, and by SQLAlchemyAdapter."""
        upgrade(url)
        migrated = described(engine)
        drop_all(engine)
        with open_adapter(url):
            pass
        native = described(engine)
        drop_all(engine)
        with SQLAlchemyAdapter(engine):
            pass
        assert {*COMPLETE, "partial"} == migrated.keys()
        assert migrated == native
        assert described(engine) == native

    def test_the_adapters_share_what_migrations_made(self, url: str, engine: Engine) -> None:
        upgrade(url)
        with open_adapter(url) as native, SQLAlchemyAdapter(engine) as other:
            for adapter in (native, other):
                uses(adapter)
            session = create_session(data={"x": 1.5})
            said = Message(session_id=session.id, role="user", content="hi", tool_calls=[{}])
            committed = native.commit(session, [said], expected_version=0)
            assert other.load(session.id, last_messages=1) == committed[:3]
            again = other.commit(committed.session, [], expected_version=1)
            assert native.find_sessions(SessionQuery()).items == [again.session]

    def test_what_an_adapter_created_is_recognised(self, url: str) -> None:
        with open_adapter(url) as adapter:
            session = adapter.commit(create_session(), expected_version=0).session
            assert current(url).is_complete
            assert current(url).revision is None
            done = upgrade(url)
            assert (done.revision, done.missing) == (done.head, ())
            found = adapter.load(session.id)
            assert found is not None
            assert found.session == session

    def test_upgrades_may_be_repeated_and_change_nothing_then(self, url: str, engine: Engine) -> None:
        first = upgrade(url)
        schema = described(engine)
        assert upgrade(url) == upgrade(engine) == current(url) == first
        assert described(engine) == schema

    def test_tables_of_other_names_have_a_history_of_their_own(self, url: str, engine: Engine) -> None:
        names = {"sessions": "chat", "messages": "chat_lines"}
        upgrade(url, tables=names)
        assert current(url, tables=names).is_complete
        assert not current(url).is_complete
        with SQLAlchemyAdapter(engine, tables=names) as adapter:
            uses(adapter)
        tables = inspect(engine).get_table_names()
        assert set(tables) == {"chat", "chat_lines", "chat_turns", "chat_schema"}

    def test_the_applications_own_alembic_is_left_alone(self, url: str, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
            connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
        upgrade(url)
        with engine.connect() as connection:
            assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == ["theirs"]

    def test_a_schema_of_a_newer_inturn_is_not_touched(self, url: str, engine: Engine) -> None:
        upgrade(url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE agent_sessions_schema SET version_num = '9999'"))
        for call in (upgrade, current):
            with pytest.raises(StoreError, match="newer"):
                call(url)

    def test_processes_that_start_together_upgrade_once(self, url: str, engine: Engine) -> None:
        make_foreign(engine)
        script = """
            import sys
            from inturn.persistence.schema import upgrade

            print("ready", flush=True)
            sys.stdin.read()
            print(upgrade(sys.argv[1]).revision)
        """
        with ExitStack() as stack:
            processes = [stack.enter_context(started_script(script, url)) for _ in range(3)]
            assert [next_line(process) for process in processes] == ["ready"] * 3
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            assert [next_line(process) for process in processes] == [current(url).head] * 3
        assert current(url).is_complete


class TestAdoption:
    def test_tables_of_prisma_models_are_adopted_without_loss(self, url: str, engine: Engine) -> None:
        """Rows stay, messages are numbered by time and then ID, counts are counted, times are in UTC."""
        make_foreign(engine)
        upgrade(url)
        for adapter in (open_adapter(url), SQLAlchemyAdapter(engine)):
            with adapter:
                check_adopted(adapter)
        assert current(url).is_complete

    def test_adopted_tables_are_like_new_ones(self, url: str, engine: Engine) -> None:
        upgrade(url)
        new = described(engine)
        drop_all(engine)
        make_foreign(engine)
        upgrade(url)
        assert described(engine) == new

    def test_a_conversation_goes_on_where_it_was(self, url: str, engine: Engine) -> None:
        make_foreign(engine)
        upgrade(url)
        with open_adapter(url) as adapter:
            found = adapter.load("clx1", last_messages=1)
            assert found is not None
            assert [(each.sequence, each.content) for each in found.messages] == [(4, "fourth: 🙂 'quoted'")]
            said = Message(session_id="clx1", role="user", content="fifth")
            committed = adapter.commit(found.session, [said], expected_version=1)
            assert (committed.messages[0].sequence, committed.session.version) == (5, 2)
            uses(adapter)

    def test_what_others_have_added_stays(self, url: str, engine: Engine) -> None:
        """Columns, indexes, and tables that refer to ours."""
        make_foreign(engine)
        with engine.begin() as connection:
            for statement in (
                "ALTER TABLE agent_sessions ADD COLUMN tenant VARCHAR(20) DEFAULT 'acme'",
                "CREATE INDEX theirs ON agent_sessions (tenant)",
                "CREATE TABLE ratings (session_id VARCHAR(200) REFERENCES agent_sessions (id), stars INTEGER)"
                if engine.dialect.name == "sqlite"
                else "CREATE TABLE ratings (session_id TEXT REFERENCES agent_sessions (id), stars INTEGER)",
                "INSERT INTO ratings VALUES ('clx1', 5)",
            ):
                connection.execute(text(statement))
        upgrade(url)
        with engine.connect() as connection:
            query = "SELECT s.tenant, r.stars FROM agent_sessions s JOIN ratings r ON r.session_id = s.id"
            assert [tuple(row) for row in connection.execute(text(query))] == [("acme", 5)]
        assert "theirs" in {index["name"] for index in inspect(engine).get_indexes("agent_sessions")}
        (key,) = inspect(engine).get_foreign_keys("ratings")
        assert key["referred_table"] == "agent_sessions"

    def test_a_failed_upgrade_leaves_everything_as_it_was(self, url: str, engine: Engine) -> None:
        make_foreign(engine)
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(
                    text("ALTER TABLE agent_messages DROP CONSTRAINT agent_messages_session_id_fkey")
                )
            connection.execute(text("UPDATE agent_messages SET session_id = 'nobody' WHERE id = 'n1'"))
        before = described(engine)
        with pytest.raises(StoreError, match="1 rows of agent_messages"):
            upgrade(url)
        assert described(engine) == before
        assert current(url).revision is None

    def test_an_adapter_names_the_command_for_older_tables(self, engine: Engine) -> None:
        make_foreign(engine)
        with pytest.raises(StoreError, match="inturn db upgrade"), SQLAlchemyAdapter(engine):
            pass

    @pytest.mark.parametrize(
        "time",
        [
            1711848600123,
            "2024-03-31T01:30:00.123Z",
            "2024-03-31T03:30:00.123+02:00",
            "2024-03-31 01:30:00.123",
        ],
    )
    def test_every_kind_of_time_in_sqlite_is_read(self, tmp_path: Path, time: int | str) -> None:
        """Prisma keeps milliseconds since 1970 there, other programs texts with or without a zone."""
        path = tmp_path / "sessions.db"
        with closing(sqlite3.connect(path)) as connection:
            for statement in statements("sqlite"):
                connection.execute(statement)
            connection.execute("UPDATE agent_sessions SET created_at = ?", [time])
            connection.commit()
        upgrade(f"sqlite:///{path}")
        with SQLiteAdapter(f"sqlite:///{path}") as adapter:
            found = adapter.load("clx1")
            assert found is not None
            assert found.session.created_at == datetime(2024, 3, 31, 1, 30, 0, 123000, tzinfo=UTC)


class TestCommand:
    @pytest.fixture
    def run(self, url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
        monkeypatch.delenv("INTURN_DATABASE_URL", raising=False)
        monkeypatch.setenv("DATABASE_URL", url)

        def run(*arguments: str) -> tuple[int, str]:
            result = CliRunner().invoke(app, ["db", *arguments])
            return result.exit_code, result.stdout

        return run

    def test_check_says_what_is_missing_until_it_is_there(
        self, run: Callable[..., tuple[int, str]], engine: Engine
    ) -> None:
        code, said = run("check")
        assert code == 1
        assert "there is no table agent_turns" in said
        make_foreign(engine)
        code, said = run("check")
        assert code == 1
        assert "agent_sessions has no state, version, schema_version" in said
        assert "agent_messages has no index idx_messages_user" in said
        assert run("upgrade")[0] == 0
        assert run("check") == (0, "the schema is complete\n")
        code, said = run("check", "--json")
        assert (code, json.loads(said)["missing"]) == (0, [])
        with engine.begin() as connection:
            connection.execute(text("DROP INDEX idx_messages_user"))
        code, said = run("check", "--json")
        assert (code, json.loads(said)["missing"]) == (1, ["agent_messages has no index idx_messages_user"])

    def test_current_says_where_the_schema_is(self, run: Callable[..., tuple[int, str]], url: str) -> None:
        assert "no revision" in run("current")[1]
        with open_adapter(url):
            pass
        assert "complete" in run("current")[1]
        run("upgrade")
        state = json.loads(run("current", "--json")[1])
        assert (state["revision"], state["complete"]) == (state["head"], True)


@pytest.mark.parametrize("url", ["memory://", "redis://localhost", "hunter2", ""])
def test_what_has_no_schema_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no schema") as error:
        current(url)
    assert "hunter2" not in str(error.value) or url == "hunter2"
