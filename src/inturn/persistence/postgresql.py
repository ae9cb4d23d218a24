"""PostgreSQLAdapter: sessions in PostgreSQL, through psycopg 3; the queries are in `sql/postgresql.sql`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from inturn.errors import ConfigurationError, SessionConflictError
from inturn.persistence import rows
from inturn.persistence.adapter import (
    Committed,
    Loaded,
    MessageQuery,
    Page,
    PersistenceAdapter,
    Recorded,
    SessionQuery,
    Target,
)
from inturn.persistence.sql import Tables, read_queries
from inturn.persistence.sql.listing import Listing, list_messages, list_sessions
from inturn.persistence.sql.psycopg_connections import (
    Connections,
    OneConnection,
    OwnPool,
    PgConnection,
    Pool,
)
from inturn.session.state import Message, SessionState, TurnRecord


class PostgreSQLAdapter(PersistenceAdapter):
    """Sessions in three tables of a PostgreSQL database.

    The first argument is one of

    - a URL, `postgresql://user:password@host:port/database?sslmode=require`, with any parameter of libpq:
      the adapter keeps a pool of at most `pool_size` connections, opened in the process that first needs
      them, and `close()` closes it;
    - a `psycopg_pool.ConnectionPool`, open, of `psycopg.Connection`: it stays yours to close;
    - a `psycopg.Connection`: it stays yours, is used by one thread at a time, and calls made while you have
      a transaction open take part in it.

    `tables` names the tables: `{"sessions": "chat.sessions", "messages": "chat.messages"}`; see
    `inturn.persistence.sql.Tables.named` for what is left out.

    A load and a commit are one statement each, so one round trip, atomic without a transaction of their own.
    A call that finds its connection lost is repeated once on another, if it may be: every read, and every
    commit with a turn.
    """

    supports_rewriting: ClassVar[bool] = True

    def __init__(
        self,
        source: str | ConnectionPool[PgConnection] | PgConnection,
        *,
        tables: Mapping[str, str] | None = None,
        pool_size: int = 16,
    ) -> None:
        self._queries = _Queries(Tables.named(tables))
        self._connections = _connections(source, pool_size)

    def initialize(self) -> None:
        """See `PersistenceAdapter.initialize`; raises `ConfigurationError` if the database is not in UTF8."""

        def work(connection: PgConnection) -> None:
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise ConfigurationError(f"the database must be in UTF8, this one is in {encoding}")
            if _rows(connection, self._queries.is_complete, {"names": self._queries.names})[0]["complete"]:
                return
            with connection.transaction():
                # Two processes that create the same table at once would both fail.
                connection.execute("SELECT pg_advisory_xact_lock(hashtext('inturn schema'))")
                connection.execute(self._queries.schema)

        self._connections.run(work, repeatable=True)

    def close(self) -> None:
        """See `PersistenceAdapter.close`."""
        self._connections.close()

    def ping(self) -> None:
        """See `PersistenceAdapter.ping`."""
        self._read(self._queries.ping, {})

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """See `PersistenceAdapter.load`."""
        rows.check_load(session_id, last_messages, turn_id)
        turn_key = None if turn_id is None else rows.turn_key(turn_id)
        found = self._read(
            self._queries.load,
            {"session_id": session_id, "last_messages": last_messages, "turn_id": turn_key},
        )
        if not found:
            return None
        row = found[0]
        turn = row.pop("turn")
        if turn is not None and turn_id is not None:
            turn = rows.turn_from_row({**turn, "session_id": session_id}, turn_id)
        listed = row.pop("messages")
        messages = [] if listed is None else rows.messages_from_json(listed)
        return Loaded(rows.session_from_row(row), messages, turn)

    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        """See `PersistenceAdapter.commit`."""
        saved, numbered = rows.next_commit(session, messages, expected_version, turn)
        query = self._queries.create if expected_version == 0 else self._queries.update
        remembered = {} if turn is None else rows.turn_row(turn)
        parameters = {
            **rows.session_row(saved),
            "expected_version": expected_version,
            "expected_count": session.message_count,
            "turn_id": remembered.get("turn_id"),
            "turn_result": remembered.get("result"),
            "turn_created_at": remembered.get("created_at"),
            "messages": json.dumps([_jsonable(rows.message_row(message)) for message in numbered]),
        }
        try:
            written = self._connections.run(
                lambda connection: bool(_rows(connection, query, parameters)),
                repeatable=turn is not None,
                passing=psycopg.errors.UniqueViolation,
            )
            taken = False
        except psycopg.errors.UniqueViolation:
            written, taken = False, True
        if written:
            return Committed(saved, numbered, turn)
        current = self.load(session.id, turn_id=None if turn is None else turn.turn_id)
        if current is not None and current.turn is not None:
            return Committed(session, [], current.turn, repeated=True)
        stored = None if current is None else rows.session_row(current.session)
        rows.check_current(session, expected_version, stored)
        if taken:
            raise rows.taken_message_id()
        # What was in the way a moment ago is gone since.
        raise SessionConflictError(
            session.id, expected_version, None if stored is None else stored["version"]
        )

    def recorded(self, session_id: str, turn_ids: Sequence[str]) -> Recorded:
        """See `PersistenceAdapter.recorded`."""
        keys = rows.turn_keys(session_id, turn_ids)
        found = self._read(self._queries.recorded, {"session_id": session_id, "turn_ids": list(keys)})
        known = frozenset(keys[row["turn_id"]] for row in found if row["turn_id"] is not None)
        return Recorded(found[0]["version"] if found else 0, known)

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        listing = list_sessions(query)
        found = self._read(self._queries.listing("find_sessions", listing), listing.parameters)
        return listing.page([rows.listed_session(row, query) for row in found])

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`."""
        listing = list_messages(query)
        found = self._read(self._queries.listing("find_messages", listing), listing.parameters)
        return listing.page([rows.message_from_row(row) for row in found])

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`."""
        rows.check_targets(targets)
        ids = [target.session_id for target in targets]
        parameters = {"ids": ids, "versions": [target.version for target in targets]}
        deleted = self._connections.run(
            lambda connection: _rows(connection, self._queries.delete_sessions, parameters), repeatable=False
        )
        gone = {row["id"] for row in deleted}
        return [session_id for session_id in dict.fromkeys(ids) if session_id in gone]

    def find_turns(self, session_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[TurnRecord]:
        """See `PersistenceAdapter.find_turns`."""
        rows.check_turns_query(session_id, limit)
        parameters = {"session_id": session_id, "after": rows.turns_after(cursor), "limit": limit + 1}
        return rows.page_of_turns(self._read(self._queries.find_turns, parameters), limit)

    def rewrite(
        self,
        session: SessionState | None = None,
        messages: Sequence[Message] = (),
        turns: Sequence[TurnRecord] = (),
    ) -> int:
        """See `PersistenceAdapter.rewrite`."""
        session_row, message_rows, turn_rows = rows.rewritten_rows(session, messages, turns)
        parameters = {
            **(session_row or dict.fromkeys(("id", "version", *rows.REWRITTEN_OF_A_SESSION))),
            "messages": json.dumps([_jsonable(row) for row in message_rows]),
            "turns": json.dumps([_jsonable(row) for row in turn_rows]),
        }
        return int(self._read(self._queries.rewrite, parameters)[0]["rewritten"])

    def _read(self, query: bytes, parameters: Mapping[str, Any]) -> list[rows.Row]:
        return self._connections.run(lambda connection: _rows(connection, query, parameters), repeatable=True)


class _Queries:
    """The queries of `sql/postgresql.sql`, with the tables' names in their places."""

    def __init__(self, tables: Tables) -> None:
        self._text = read_queries("postgresql")
        indexes = tables.indexes()
        # An index is named without its schema where it is created: it is always in its table's.
        self._names: dict[str, sql.Composable] = {
            "sessions": sql.Identifier(*tables.sessions.split(".")),
            "messages": sql.Identifier(*tables.messages.split(".")),
            "turns": sql.Identifier(*tables.turns.split(".")),
            **{key: sql.Identifier(name.rpartition(".")[2]) for key, name in indexes.items()},
            "session_columns": sql.SQL(", ").join(map(sql.Identifier, rows.SESSION_COLUMNS)),
            "message_columns": sql.SQL(", ").join(map(sql.Identifier, rows.MESSAGE_COLUMNS)),
        }
        everything = [tables.sessions, tables.messages, tables.turns, *indexes.values()]
        self.names = [sql.Identifier(*name.split(".")).as_string() for name in everything]
        self.schema = self._rendered("schema")
        self.is_complete = self._rendered("is_complete")
        self.ping = self._rendered("ping")
        self.load = self._rendered("load")
        self.recorded = self._rendered("recorded")
        self.create = self._rendered("commit", written=self._composed("insert_session"))
        self.update = self._rendered("commit", written=self._composed("update_session"))
        self.delete_sessions = self._rendered("delete_sessions")
        self.find_turns = self._rendered("find_turns")
        self.rewrite = self._rendered("rewrite")

    def listing(self, name: str, listing: Listing) -> bytes:
        """The query `name`, ended by `listing`."""
        end = _sql(listing.text).format(**{key: sql.Placeholder(key) for key in listing.parameters})
        return (self._composed(name) + sql.SQL(" ") + end).as_bytes()

    def _rendered(self, name: str, **parts: sql.Composable) -> bytes:
        return self._composed(name, **parts).as_bytes()

    def _composed(self, name: str, **parts: sql.Composable) -> sql.Composed:
        return _sql(self._text[name]).format(**self._names, **parts)


def _sql(text: str) -> sql.SQL:
    return sql.SQL(text)  # pyright: ignore[reportArgumentType] - it comes from this package


def _connections(source: object, pool_size: int) -> Connections:
    if isinstance(source, str):
        return OwnPool(source, pool_size)
    if isinstance(source, ConnectionPool):
        return Pool(source)
    if isinstance(source, psycopg.Connection):
        return OneConnection(source)
    raise ConfigurationError(
        f"a PostgreSQLAdapter takes a URL, a ConnectionPool or a Connection, not {type(source).__name__}"
    )


def _rows(connection: PgConnection, query: bytes, parameters: Mapping[str, Any]) -> list[rows.Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


def _jsonable(row: rows.Row) -> rows.Row:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
