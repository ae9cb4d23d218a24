"""The tables of sessions, messages and turns for SQLAlchemy, and classes over them to join with your own.

`AgentSession`, `AgentMessage` and `AgentTurn` are ready to use, over the tables with their usual names. To
have them on a `Base` of your own, next to your models, derive them there:

    class AgentSession(SessionMixin, Base):
        __table__ = TABLES.sessions

with `TABLES = agent_tables(Base.metadata)`; likewise `AgentMessage(MessageMixin, Base)` and
`AgentTurn(TurnMixin, Base)`, which must have these names, for the relationships between them use them.

They are made for reading. What the ORM changes in a session counts as a commit: its `version` grows, and
whoever had loaded the session before meets a conflict. Messages and turns are the adapter's alone to write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Column, ForeignKey, Index, MetaData, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, relationship
from sqlalchemy.types import TypeEngine

from inturn.errors import ConfigurationError
from inturn.ids import MAX_ID_LENGTH
from inturn.persistence import rows
from inturn.persistence.columns import BigInt, Json, Name, Prose, UtcTime, empty_object, now
from inturn.persistence.sql import Tables

TURN_KEY_LENGTH = 512
"""Characters a turn's key may have; see `inturn.persistence.rows.turn_key`."""

_COLUMN_NAME = re.compile(r"[A-Za-z_]\w{0,62}", re.ASCII)


class AgentTables(NamedTuple):
    """The three tables; `table.c` knows the columns by our names, whatever the database calls them."""

    sessions: Table
    messages: Table
    turns: Table


def agent_tables(
    metadata: MetaData,
    *,
    tables: Mapping[str, str] | None = None,
    field_mappings: Mapping[str, Mapping[str, str]] | None = None,
) -> AgentTables:
    """Describe the tables in `metadata`.

    `tables` names them, with a schema if need be: `{"sessions": "chat.sessions"}`; see
    `inturn.persistence.sql.Tables.named` for what is left out. `field_mappings` names columns that are
    called something else than ours: `{"sessions": {"user_id": "userId", "created_at": "createdAt"}}`.

    Raises `ConfigurationError` for a name that is none, or is given twice, and for a column we do not have.
    """
    names = Tables.named(tables)
    mapped = _checked(field_mappings)
    indexes = {key: name.rpartition(".")[2] for key, name in names.indexes().items()}

    sessions = _table(
        metadata,
        names.sessions,
        mapped["sessions"],
        [
            _column("id", Name(MAX_ID_LENGTH), primary_key=True),
            _column("user_id", Name(MAX_ID_LENGTH), nullable=True),
            _column("agent_name", Name(), nullable=True),
            _column("status", Name(32), server_default="active"),
            _column("current_route", Prose(), nullable=True),
            _column("current_step", Prose(), nullable=True),
            _column("collected_data", Json(), server_default=empty_object()),
            _column("state", Json(), server_default=empty_object()),
            _column("message_count", BigInt, server_default="0"),
            _column("last_message_at", UtcTime(), nullable=True),
            _column("completed_at", UtcTime(), nullable=True),
            _column("created_at", UtcTime(), server_default=now()),
            _column("updated_at", UtcTime(), server_default=now()),
            _column("version", BigInt, server_default="1"),
            _column("schema_version", BigInt, nullable=True),
        ],
    )
    Index(indexes["sessions_user_status"], sessions.c.user_id, sessions.c.status)
    Index(indexes["sessions_updated"], sessions.c.updated_at, sessions.c.id)

    def of_session() -> ForeignKey:
        return ForeignKey(sessions.c.id, ondelete="CASCADE")

    messages = _table(
        metadata,
        names.messages,
        mapped["messages"],
        [
            _column("id", Name(MAX_ID_LENGTH), primary_key=True),
            _column("session_id", Name(MAX_ID_LENGTH), of_session()),
            _column("sequence", BigInt),
            _column("turn_id", Prose(), nullable=True),
            _column("user_id", Name(MAX_ID_LENGTH), nullable=True),
            _column("role", Prose()),
            _column("content", Prose()),
            _column("name", Prose(), nullable=True),
            _column("route", Prose(), nullable=True),
            _column("step", Prose(), nullable=True),
            _column("tool_calls", Json(), nullable=True),
            _column("event", Json(), nullable=True),
            _column("created_at", UtcTime(), server_default=now()),
        ],
    )
    Index(indexes["messages_session"], messages.c.session_id, messages.c.sequence, unique=True)
    Index(indexes["messages_created"], messages.c.created_at)
    has_user = messages.c.user_id.is_not(None)
    Index(
        indexes["messages_user"],
        messages.c.user_id,
        messages.c.created_at,
        messages.c.id,
        postgresql_where=has_user,
        sqlite_where=has_user,
    )

    turns = _table(
        metadata,
        names.turns,
        mapped["turns"],
        [
            _column("session_id", Name(MAX_ID_LENGTH), of_session(), primary_key=True),
            _column("turn_id", Name(TURN_KEY_LENGTH), primary_key=True),
            _column("result", Json(), server_default=empty_object()),
            _column("created_at", UtcTime(), server_default=now()),
        ],
    )
    return AgentTables(sessions, messages, turns)


def _column(
    name: str, type_: TypeEngine[Any], *constraints: ForeignKey, nullable: bool = False, **options: Any
) -> Column[Any]:
    return Column(name, type_, *constraints, key=name, nullable=nullable, **options)


def _table(metadata: MetaData, name: str, mapped: Mapping[str, str], columns: list[Column[Any]]) -> Table:
    schema, _, bare = name.rpartition(".")
    for column in columns:
        column.name = mapped.get(column.key, column.key)
    return Table(bare, metadata, *columns, schema=schema or None, mysql_engine="InnoDB")


_COLUMNS = {
    "sessions": rows.SESSION_COLUMNS,
    "messages": rows.MESSAGE_COLUMNS,
    "turns": rows.TURN_COLUMNS,
}


def _checked(mappings: Mapping[str, Mapping[str, str]] | None) -> dict[str, dict[str, str]]:
    given = {kind: dict(names) for kind, names in (mappings or {}).items()}
    if unknown := given.keys() - _COLUMNS.keys():
        raise ConfigurationError(
            f"field_mappings has no {', '.join(sorted(map(repr, unknown)))}; map sessions, messages and turns"
        )
    for kind, columns in _COLUMNS.items():
        mapped = given.setdefault(kind, {})
        if strange := mapped.keys() - set(columns):
            raise ConfigurationError(
                f"{kind} have no column {', '.join(sorted(map(repr, strange)))}; theirs are "
                f"{', '.join(columns)}"
            )
        for name in mapped.values():
            if not isinstance(name, str) or not _COLUMN_NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{name!r} cannot name a column: use letters, digits and underscores, at most 63"
                )
        if len({mapped.get(name, name) for name in columns}) < len(columns):
            raise ConfigurationError(f"two columns of {kind} would have the same name")
    return given


class SessionMixin:
    """A session as a mapped class; `messages` and `turns` are its rows in the other tables."""

    if TYPE_CHECKING:
        id: Mapped[str]
        user_id: Mapped[str | None]
        agent_name: Mapped[str | None]
        status: Mapped[str]
        current_route: Mapped[str | None]
        current_step: Mapped[str | None]
        collected_data: Mapped[dict[str, Any]]
        state: Mapped[dict[str, Any]]
        message_count: Mapped[int]
        last_message_at: Mapped[datetime | None]
        completed_at: Mapped[datetime | None]
        created_at: Mapped[datetime]
        updated_at: Mapped[datetime]
        version: Mapped[int]
        schema_version: Mapped[int | None]

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:
        # The ORM's own optimistic locking is the adapter's.
        return {"version_id_col": cls.__table__.c.version}  # type: ignore[attr-defined]

    @declared_attr
    def messages(cls) -> Mapped[list[MessageMixin]]:
        """All messages of the session, in their order."""
        return relationship(
            "AgentMessage", order_by="AgentMessage.sequence", back_populates="session", viewonly=True
        )

    @declared_attr
    def turns(cls) -> Mapped[list[TurnMixin]]:
        """The turns that were committed, in no order."""
        return relationship("AgentTurn", back_populates="session", viewonly=True)


class MessageMixin:
    """A message as a mapped class."""

    if TYPE_CHECKING:
        id: Mapped[str]
        session_id: Mapped[str]
        sequence: Mapped[int]
        turn_id: Mapped[str | None]
        user_id: Mapped[str | None]
        role: Mapped[str]
        content: Mapped[str]
        name: Mapped[str | None]
        route: Mapped[str | None]
        step: Mapped[str | None]
        tool_calls: Mapped[list[dict[str, Any]] | None]
        event: Mapped[dict[str, Any] | None]
        created_at: Mapped[datetime]

    @declared_attr
    def session(cls) -> Mapped[SessionMixin]:
        """The session it belongs to."""
        return relationship("AgentSession", back_populates="messages", viewonly=True)


class TurnMixin:
    """The record of a turn as a mapped class."""

    if TYPE_CHECKING:
        session_id: Mapped[str]
        turn_id: Mapped[str]
        result: Mapped[dict[str, Any]]
        created_at: Mapped[datetime]

    @declared_attr
    def session(cls) -> Mapped[SessionMixin]:
        """The session it belongs to."""
        return relationship("AgentSession", back_populates="turns", viewonly=True)


class Base(DeclarativeBase):
    """The base of the ready classes."""


TABLES = agent_tables(Base.metadata)


class AgentSession(SessionMixin, Base):
    """A session in the table `agent_sessions`."""

    __table__ = TABLES.sessions


class AgentMessage(MessageMixin, Base):
    """A message in the table `agent_messages`."""

    __table__ = TABLES.messages


class AgentTurn(TurnMixin, Base):
    """The record of a turn in the table `agent_turns`."""

    __table__ = TABLES.turns
