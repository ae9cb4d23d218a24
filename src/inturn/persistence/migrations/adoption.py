"""adopt: tables of sessions and messages that another program has made become ours, with all their rows.

They have the columns `id, user_id, agent_name, status, current_route, current_step, collected_data,
message_count, last_message_at, completed_at, created_at, updated_at` and `id, session_id, user_id, role,
content, route, step, tool_calls, event, created_at`; times without a zone are in UTC. What else they have,
columns, indexes, rights, stays as it is. Each part may be repeated, for MySQL cannot undo one.
"""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Inspector,
    Table,
    bindparam,
    collate,
    func,
    inspect,
    or_,
    select,
    text,
    update,
)

from inturn.errors import StoreError
from inturn.persistence.columns import MYSQL, UtcTime, binary_collation, now, to_utc

_CHUNK = 1000


def adopt(connection: Connection, sessions: Table, messages: Table) -> None:
    """Give the tables that are there the columns, types and indexes of `sessions` and `messages`.

    Messages are numbered by time, then by ID; a session has the version 1 and as many messages as are there.
    Raises `StoreError` for messages whose session is missing: nobody could read them.
    """
    inspector = inspect(connection)
    found = [table for table in (sessions, messages) if inspector.has_table(table.name, table.schema)]
    if not found:
        return
    if found != [sessions, messages]:
        raise StoreError(
            f"there is a table {found[0].fullname} without the other of {sessions.fullname} and "
            f"{messages.fullname}; rename it, or bring back the other"
        )
    _use_utc(connection)
    for table in found:
        _add_columns(inspector, table)
    _refuse_orphans(connection, sessions, messages)
    if connection.dialect.name in MYSQL:
        # It changes no column that a foreign key is about.
        _drop_foreign_keys(inspector, messages)
    if connection.dialect.name == "sqlite":
        for table in found:
            _rewrite_times(connection, table)
    _fill_sessions(connection, sessions)
    _number(connection, sessions, messages)
    for table in found:
        _alter_columns(inspect(connection), table)
    for table in found:
        _change_indexes(inspect(connection), table)
    _add_foreign_key(inspect(connection), sessions, messages)
    _fill_states(connection, sessions)


def _use_utc(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
    elif connection.dialect.name in MYSQL:
        connection.exec_driver_sql("SET time_zone = '+00:00'")


def _add_columns(inspector: Inspector, table: Table) -> None:
    there = {column["name"] for column in inspector.get_columns(table.name, table.schema)}
    for column in table.columns:
        if column.name not in there:
            # Not null, and with its default, once it is filled.
            op.add_column(table.name, Column(column.name, column.type), schema=table.schema)


def _refuse_orphans(connection: Connection, sessions: Table, messages: Table) -> None:
    homeless = select(func.count()).where(messages.c.session_id.not_in(select(sessions.c.id)))
    if count := connection.scalar(homeless):
        raise StoreError(
            f"{count} rows of {messages.fullname} belong to no row of {sessions.fullname}; "
            "add their sessions, or delete them"
        )


def _rewrite_times(connection: Connection, table: Table) -> None:
    """Turn what SQLite has for times (texts of several kinds, milliseconds) into texts that sort."""
    driver: Any = connection.connection.driver_connection
    driver.create_function("inturn_time", 1, _time_text)
    columns = [column for column in table.columns if isinstance(column.type, UtcTime)]
    names = ", ".join(f"{column.name} = inturn_time({column.name})" for column in columns)
    connection.exec_driver_sql(f'UPDATE "{table.name}" SET {names}')  # noqa: S608 - our own names


def _time_text(value: Any) -> str | None:
    return None if value is None else to_utc(value).isoformat(timespec="microseconds")


def _fill_sessions(connection: Connection, sessions: Table) -> None:
    c = sessions.c
    for column, value in {
        c.status: "active",
        c.collected_data: {},
        c.state: {},
        c.version: 1,
        c.created_at: func.coalesce(c.updated_at, now()),
        c.updated_at: c.created_at,
    }.items():
        connection.execute(update(sessions).where(column.is_(None)).values({column: value}))


def _number(connection: Connection, sessions: Table, messages: Table) -> None:
    c = messages.c
    collation = binary_collation(connection.dialect)
    by_id: ColumnElement[Any] = c.id if collation is None else collate(c.id, collation)
    nth = func.row_number().over(partition_by=c.session_id, order_by=[c.created_at, by_id])
    numbered = select(c.id, nth.label("nth")).subquery()
    connection.execute(
        update(messages).where(c.id == numbered.c.id, c.sequence.is_(None)).values(sequence=numbered.c.nth)
    )
    mine = c.session_id == sessions.c.id
    count = select(func.count()).select_from(messages).where(mine).scalar_subquery()
    newest = select(func.max(c.created_at)).where(mine).scalar_subquery()
    connection.execute(
        update(sessions).values(
            message_count=count, last_message_at=func.coalesce(sessions.c.last_message_at, newest)
        )
    )


def _alter_columns(inspector: Inspector, table: Table) -> None:
    there = {column["name"]: column for column in inspector.get_columns(table.name, table.schema)}
    with op.batch_alter_table(table.name, schema=table.schema) as batch:
        for column in table.columns:
            found = there[column.name]
            batch.alter_column(
                column.name,
                type_=column.type,
                nullable=bool(column.nullable),
                server_default=column.server_default and column.server_default.arg,  # type: ignore[attr-defined]
                existing_type=found["type"],
                existing_nullable=found["nullable"],
                existing_server_default=found["default"] and text(found["default"]),
                postgresql_using=_using(column, found["type"]),
            )


def _using(column: Column[Any], found: Any) -> str:
    """How PostgreSQL makes the new value of the old one."""
    if isinstance(column.type, UtcTime) and not getattr(found, "timezone", True):
        return f"\"{column.name}\" AT TIME ZONE 'UTC'"
    bind = op.get_bind()
    return f'"{column.name}"::{column.type.compile(bind.dialect).partition(" COLLATE")[0]}'


def _change_indexes(inspector: Inspector, table: Table) -> None:
    wanted = {str(index.name): [column.name for column in index.columns] for index in table.indexes}
    # Of the same columns as ours, under the names that Prisma gives.
    theirs = {f"{table.name}_user_id_status_idx", f"{table.name}_session_id_idx"}
    kept = set()
    for found in inspector.get_indexes(table.name, table.schema):
        name = found["name"] or ""
        if wanted.get(name) == found["column_names"]:
            kept.add(name)
        elif name in wanted or name in theirs:
            op.drop_index(name, table.name, schema=table.schema)
    for index in table.indexes:
        if index.name not in kept:
            index.create(op.get_bind())


def _drop_foreign_keys(inspector: Inspector, messages: Table) -> None:
    for key in inspector.get_foreign_keys(messages.name, messages.schema):
        if key["constrained_columns"] == ["session_id"] and key["name"]:
            op.drop_constraint(key["name"], messages.name, type_="foreignkey", schema=messages.schema)


def _add_foreign_key(inspector: Inspector, sessions: Table, messages: Table) -> None:
    keys = inspector.get_foreign_keys(messages.name, messages.schema)
    if any(key["constrained_columns"] == ["session_id"] for key in keys):
        return
    with op.batch_alter_table(messages.name, schema=messages.schema) as batch:
        batch.create_foreign_key(
            f"{messages.name}_session_id_fkey",
            sessions.name,
            ["session_id"],
            ["id"],
            ondelete="CASCADE",
            referent_schema=sessions.schema,
        )


def _fill_states(connection: Connection, sessions: Table) -> None:
    """Put the route and the step of each session where its other state is."""
    c = sessions.c
    placed = or_(c.current_route.is_not(None), c.current_step.is_not(None))
    page = select(c.id, c.current_route, c.current_step, c.state, c.updated_at).where(placed)
    page = page.order_by(c.id).limit(_CHUNK)
    change = update(sessions).where(c.id == bindparam("this_id")).values(state=bindparam("new_state"))
    found = connection.execute(page).all()
    while found:
        connection.execute(
            change,
            [
                {
                    "this_id": row.id,
                    "new_state": _state(row.current_route, row.current_step, row.updated_at.isoformat())
                    | row.state,
                }
                for row in found
            ],
        )
        found = connection.execute(page.where(c.id > found[-1].id)).all()


def _state(route: str | None, step: str | None, since: str) -> dict[str, Any]:
    """A session's state as `inturn.persistence.rows` writes it; since when it is there is not known."""
    state: dict[str, Any] = {"pending": None}
    if route is not None:
        state["current_route"] = {"id": route, "title": "", "entered_at": since}
        state["route_history"] = [
            {"route_id": route, "entered_at": since, "exited_at": None, "completed": False}
        ]
    if step is not None:
        state["current_step"] = {"id": step, "description": "", "entered_at": since}
    return state
