"""The three tables: created, or made of two tables as other programs left them; see `adoption`."""

from __future__ import annotations

from alembic import context, op
from sqlalchemy import Column, ForeignKey, Index, MetaData, Table

from inturn.persistence.columns import BigInt, Json, Name, Prose, UtcTime, empty_object, now
from inturn.persistence.migrations.adoption import adopt
from inturn.persistence.sql import Tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, or adopt them."""
    sessions, messages, turns = _tables(context.config.attributes["tables"])
    adopt(op.get_bind(), sessions, messages)
    turns.metadata.create_all(op.get_bind())


def _tables(names: Tables) -> tuple[Table, Table, Table]:
    metadata = MetaData()
    indexes = {key: name.rpartition(".")[2] for key, name in names.indexes().items()}

    def table(name: str, *columns: Column[object]) -> Table:
        schema, _, bare = name.rpartition(".")
        return Table(bare, metadata, *columns, schema=schema or None, mysql_engine="InnoDB")

    sessions = table(
        names.sessions,
        Column("id", Name(255), primary_key=True),
        Column("user_id", Name(255)),
        Column("agent_name", Name()),
        Column("status", Name(32), nullable=False, server_default="active"),
        Column("current_route", Prose()),
        Column("current_step", Prose()),
        Column("collected_data", Json(), nullable=False, server_default=empty_object()),
        Column("state", Json(), nullable=False, server_default=empty_object()),
        Column("message_count", BigInt, nullable=False, server_default="0"),
        Column("last_message_at", UtcTime()),
        Column("completed_at", UtcTime()),
        Column("created_at", UtcTime(), nullable=False, server_default=now()),
        Column("updated_at", UtcTime(), nullable=False, server_default=now()),
        Column("version", BigInt, nullable=False, server_default="1"),
        Column("schema_version", BigInt),
    )
    Index(indexes["sessions_user_status"], sessions.c.user_id, sessions.c.status)
    Index(indexes["sessions_updated"], sessions.c.updated_at, sessions.c.id)

    messages = table(
        names.messages,
        Column("id", Name(255), primary_key=True),
        Column("session_id", Name(255), ForeignKey(sessions.c.id, ondelete="CASCADE"), nullable=False),
        Column("sequence", BigInt, nullable=False),
        Column("turn_id", Prose()),
        Column("user_id", Name(255)),
        Column("role", Prose(), nullable=False),
        Column("content", Prose(), nullable=False),
        Column("name", Prose()),
        Column("route", Prose()),
        Column("step", Prose()),
        Column("tool_calls", Json()),
        Column("event", Json()),
        Column("created_at", UtcTime(), nullable=False, server_default=now()),
    )
    Index(indexes["messages_session"], messages.c.session_id, messages.c.sequence, unique=True)
    Index(indexes["messages_created"], messages.c.created_at)
    has_user = messages.c.user_id.is_not(None)
    Index(
        indexes["messages_user"],
        *(messages.c.user_id, messages.c.created_at, messages.c.id),
        postgresql_where=has_user,
        sqlite_where=has_user,
    )

    turns = table(
        names.turns,
        Column("session_id", Name(255), ForeignKey(sessions.c.id, ondelete="CASCADE"), primary_key=True),
        Column("turn_id", Name(512), primary_key=True),
        Column("result", Json(), nullable=False, server_default=empty_object()),
        Column("created_at", UtcTime(), nullable=False, server_default=now()),
    )
    return sessions, messages, turns
