"""SQLiteAdapter: sessions in a SQLite file; the queries are in `sql/sqlite.sql`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from inturn.errors import ConfigurationError
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
from inturn.persistence.sql.sqlite_connections import (
    Connections,
    FileConnections,
    OneConnection,
    transaction,
)
from inturn.session.state import Message, SessionState, TurnRecord


class SQLiteAdapter(PersistenceAdapter):
    """Sessions in three tables of a SQLite database, for one machine.

    The first argument is one of

    - `sqlite:///sessions.db`: a file, relative to the working directory at this moment; four slashes begin
      an absolute path. Any number of threads and processes may use it at once;
    - `sqlite:///:memory:`: a database of this adapter alone, gone when it is closed;
    - a `sqlite3.Connection`: it stays yours, is used by one thread at a time (open it with
      `check_same_thread=False` if there are several), and calls made while you have a transaction open take
      part in it.

    Writers take turns. One that has waited 5 seconds raises `StoreUnavailableError`; readers never wait.

    `tables` names the tables: `{"sessions": "chat_sessions", "messages": "chat_messages"}`; see
    `inturn.persistence.sql.Tables.named` for what is left out.
    """

    supports_rewriting: ClassVar[bool] = True

    def __init__(self, source: str | sqlite3.Connection, *, tables: Mapping[str, str] | None = None) -> None:
        names = Tables.named(tables)
        if any("." in name for name in (names.sessions, names.messages, names.turns)):
            raise ConfigurationError("a SQLite database has no schemas; name tables without a dot")
        places = {
            "sessions": _quoted(names.sessions),
            "messages": _quoted(names.messages),
            "turns": _quoted(names.turns),
            **{key: _quoted(name) for key, name in names.indexes().items()},
            "session_columns": ", ".join(rows.SESSION_COLUMNS),
            "message_columns": ", ".join(rows.MESSAGE_COLUMNS),
        }
        self._connections = _connections(source)
        self._queries = {name: text.format(**places) for name, text in read_queries("sqlite").items()}

    def initialize(self) -> None:
        """See `PersistenceAdapter.initialize`."""
        if isinstance(self._connections, FileConnections):
            self._connections.use_wal()
        with transaction(self._connections, write=True) as cursor:
            for statement in self._queries["schema"].split(";"):
                cursor.execute(statement)

    def close(self) -> None:
        """See `PersistenceAdapter.close`."""
        self._connections.close()

    def ping(self) -> None:
        """See `PersistenceAdapter.ping`."""
        with transaction(self._connections, write=False) as cursor:
            cursor.execute("SELECT 1")

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """See `PersistenceAdapter.load`."""
        rows.check_load(session_id, last_messages, turn_id)
        parameters = {"id": session_id, "last_messages": last_messages}
        with transaction(self._connections, write=False) as cursor:
            session = self._one(cursor, "load_session", parameters)
            if session is None:
                return None
            found = self._all(cursor, "load_messages", parameters) if last_messages else []
            turn = None if turn_id is None else self._turn(cursor, session_id, turn_id)
        return Loaded(rows.session_from_row(session), rows.messages_from_rows(found[::-1]), turn)

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
        session_row = _encoded(rows.session_row(saved))
        message_rows = [_encoded(rows.message_row(message)) for message in numbered]
        turn_row = None if turn is None else _encoded(rows.turn_row(turn))
        with transaction(self._connections, write=True) as cursor:
            known = None if turn is None else self._turn(cursor, session.id, turn.turn_id)
            if known is not None:
                return Committed(session, [], known, repeated=True)
            current = self._one(cursor, "current", {"id": session.id})
            rows.check_current(session, expected_version, current)
            cursor.execute(self._queries["write_session"], session_row)
            try:
                cursor.executemany(self._queries["append_message"], message_rows)
            except sqlite3.IntegrityError:
                raise rows.taken_message_id() from None
            if turn_row is not None:
                cursor.execute(self._queries["remember_turn"], turn_row)
        return Committed(saved, numbered, turn)

    def recorded(self, session_id: str, turn_ids: Sequence[str]) -> Recorded:
        """See `PersistenceAdapter.recorded`."""
        keys = rows.turn_keys(session_id, turn_ids)
        parameters = {"id": session_id, "turn_ids": json.dumps(list(keys))}
        with transaction(self._connections, write=False) as cursor:
            found = self._all(cursor, "recorded", parameters)
        known = frozenset(keys[row["turn_id"]] for row in found if row["turn_id"] is not None)
        return Recorded(found[0]["version"] if found else 0, known)

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        listing = list_sessions(query)
        return listing.page(
            [rows.listed_session(row, query) for row in self._listed("find_sessions", listing)]
        )

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`."""
        listing = list_messages(query)
        return listing.page([rows.message_from_row(row) for row in self._listed("find_messages", listing)])

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`."""
        rows.check_targets(targets)
        gone = []
        with transaction(self._connections, write=True) as cursor:
            for session_id, version in targets:
                parameters = {"id": session_id, "version": version}
                if cursor.execute(self._queries["delete_session"], parameters).rowcount:
                    cursor.execute(self._queries["delete_messages"], parameters)
                    cursor.execute(self._queries["delete_turns"], parameters)
                    gone.append(session_id)
        return gone

    def find_turns(self, session_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[TurnRecord]:
        """See `PersistenceAdapter.find_turns`."""
        rows.check_turns_query(session_id, limit)
        parameters = {"id": session_id, "after": rows.turns_after(cursor), "limit": limit + 1}
        with transaction(self._connections, write=False) as connection:
            found = self._all(connection, "find_turns", parameters)
        return rows.page_of_turns(found, limit)

    def rewrite(
        self,
        session: SessionState | None = None,
        messages: Sequence[Message] = (),
        turns: Sequence[TurnRecord] = (),
    ) -> int:
        """See `PersistenceAdapter.rewrite`."""
        session_row, message_rows, turn_rows = rows.rewritten_rows(session, messages, turns)
        changes = [
            *(("rewrite_session", row) for row in (session_row,) if row is not None),
            *(("rewrite_message", row) for row in message_rows),
            *(("rewrite_turn", row) for row in turn_rows),
        ]
        with transaction(self._connections, write=True) as cursor:
            return sum(cursor.execute(self._queries[name], _encoded(row)).rowcount for name, row in changes)

    def _turn(self, cursor: sqlite3.Cursor, session_id: str, turn_id: str) -> TurnRecord | None:
        row = self._one(cursor, "load_turn", {"id": session_id, "turn_id": rows.turn_key(turn_id)})
        return None if row is None else rows.turn_from_row({**row, "session_id": session_id}, turn_id)

    def _listed(self, name: str, listing: Listing) -> list[rows.Row]:
        end = listing.text.format(**{key: f":{key}" for key in listing.parameters})
        with transaction(self._connections, write=False) as cursor:
            return [
                dict(row)
                for row in cursor.execute(f"{self._queries[name]} {end}", _encoded(listing.parameters))
            ]

    def _all(self, cursor: sqlite3.Cursor, name: str, parameters: Mapping[str, Any]) -> list[rows.Row]:
        return [dict(row) for row in cursor.execute(self._queries[name], parameters)]

    def _one(self, cursor: sqlite3.Cursor, name: str, parameters: Mapping[str, Any]) -> rows.Row | None:
        found = self._all(cursor, name, parameters)
        return found[0] if found else None


def _connections(source: object) -> Connections:
    if isinstance(source, sqlite3.Connection):
        return OneConnection(source, owned=False)
    if not isinstance(source, str) or not source.startswith("sqlite:///") or "?" in source:
        raise ConfigurationError(
            "a SQLiteAdapter takes a sqlite3.Connection, or a URL without options: sqlite:///relative.db, "
            "sqlite:////absolute.db or sqlite:///:memory:"
        )
    path = source.removeprefix("sqlite:///")
    if path == ":memory:":
        return OneConnection(sqlite3.connect(path, isolation_level=None, check_same_thread=False), owned=True)
    if not path:
        raise ConfigurationError("the URL names no file: sqlite:///sessions.db does")
    return FileConnections(Path(path))


def _quoted(name: str) -> str:
    return f'"{name}"'


def _encoded(row: Mapping[str, Any]) -> rows.Row:
    """Times as texts of one length in UTC, so that they sort."""
    return {
        name: value.astimezone(UTC).isoformat(timespec="microseconds")
        if isinstance(value, datetime)
        else value
        for name, value in row.items()
    }
