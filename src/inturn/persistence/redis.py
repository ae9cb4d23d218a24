"""RedisAdapter: sessions in Redis or Valkey, each call one script; the scripts are in `lua/`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError
from redis import Redis

from inturn.errors import ConfigurationError, StoreError
from inturn.persistence import rows
from inturn.persistence.adapter import (
    Committed,
    Loaded,
    MessageQuery,
    Page,
    PersistenceAdapter,
    SessionQuery,
    Target,
)
from inturn.persistence.redis_keys import END, Bounds, Keys, sortable
from inturn.persistence.redis_server import Server, milliseconds
from inturn.session.state import Message, SessionState, TurnRecord

_BATCH = 100
"""The most sessions deleted by one script."""


class RedisAdapter(PersistenceAdapter):
    """Sessions in a Redis (7 or later) or Valkey server, alone or behind Sentinel.

    The first argument is one of

    - a URL: `redis://user:password@host:6379/0`, `rediss://...` for TLS, `unix:///path/to/socket?db=0`: the
      adapter keeps a pool of at most `pool_size` connections, opened when they are needed, and `close()`
      closes it;
    - a `redis.Redis`, such as one of `Sentinel.master_for`: it stays yours to close. Whether it decodes
      responses does not matter, and it repeats lost calls as you have told it to.

    All keys begin with `key_prefix`. A commit is one script, so it happens as a whole or not at all, and may
    be repeated when its answer was lost. Redis Cluster cannot change a session and the indexes in one step:
    `initialize()` refuses it with `ConfigurationError`.

    Nothing expires by itself unless you say so, in seconds:

    - `session_ttl`: a session that is neither loaded nor committed for so long is gone, with its turns and,
      without a `message_ttl`, its messages.
    - `message_ttl`: the same for its messages. Shorter, and an older session has lost its history but not
      its state; longer, and the messages of a session that has expired are still found by `find_messages`. A
      session that begins anew with the same ID begins with an empty history.

    Listings do not renew. Redis keeps what it holds as its configuration says: see docs/persistence-redis.md
    before you keep there what must not be lost.
    """

    supports_expiry: ClassVar[bool] = True
    supports_rewriting: ClassVar[bool] = True

    def __init__(
        self,
        source: str | Redis,
        *,
        key_prefix: str = "agent:",
        session_ttl: float | None = None,
        message_ttl: float | None = None,
        pool_size: int = 16,
    ) -> None:
        if not isinstance(key_prefix, str) or not key_prefix.isprintable():
            raise ConfigurationError(f"key_prefix must be a text such as 'agent:', not {key_prefix!r}")
        self._session_ttl = milliseconds(session_ttl, "session_ttl")
        self._message_ttl = (
            self._session_ttl if message_ttl is None else milliseconds(message_ttl, "message_ttl")
        )
        self._keys = Keys(key_prefix)
        self._server = Server(source, pool_size)

    def initialize(self) -> None:
        """Nothing is created; raises `ConfigurationError` if the server is one of a cluster."""
        self._server.check()

    def close(self) -> None:
        """See `PersistenceAdapter.close`."""
        self._server.close()

    def ping(self) -> None:
        """See `PersistenceAdapter.ping`."""
        self._server.ping()

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """See `PersistenceAdapter.load`."""
        rows.check_load(session_id, last_messages, turn_id)
        found = self._server.run(
            "load",
            self._keys_of(session_id),
            [self._keys.prefix, self._session_ttl, self._message_ttl, last_messages, _turn_field(turn_id)],
        )
        if found is None:
            return None
        row, turn, messages = found
        return Loaded(
            _session(row),
            [_message(_row_of(stored)) for stored in messages],
            None if turn is None or turn_id is None else _turn(turn, turn_id),
        )

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
        session_row = rows.session_row(saved)
        arguments: list[str | int] = [
            self._keys.prefix,
            self._session_ttl,
            self._message_ttl,
            secrets.token_hex(8),
            session.id,
            expected_version,
            session.message_count,
            sortable(saved.updated_at),
            _encoded(session_row),
            saved.version,
            saved.message_count,
            _turn_field(None if turn is None else turn.turn_id),
            "" if turn is None else _encoded(rows.turn_row(turn)),
        ]
        for message in numbered:
            row = rows.message_row(message)
            arguments += [message.user_id or "", sortable(message.created_at) + message.id, _encoded(row)]
        keys = [*self._keys_of(session.id), *self._keys.indexes(session_row)]
        match self._server.run("commit", keys, arguments):
            case [b"ok"]:
                return Committed(saved, numbered, turn)
            case [b"known", record] if turn is not None:
                return Committed(session, [], _turn(record, turn.turn_id), repeated=True)
            case [b"taken"]:
                raise rows.taken_message_id()
            case [_, version, count]:
                rows.check_current(session, expected_version, _current(version, count))
        raise AssertionError("a commit was refused without a reason")

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        rows.check_session_query(query)
        kind, bounds = f"sessions, {query.order} first", Bounds()
        if query.newer_than is not None:
            bounds.above(sortable(query.newer_than).encode() + END)
        if query.older_than is not None:
            bounds.below(sortable(query.older_than).encode())
        if query.cursor is not None:
            last = _name(rows.decode_cursor(query.cursor, kind, datetime, str))
            bounds.below(last) if query.order == "newest" else bounds.above(last)
        found = self._find_named(self._keys.index(query), "", query, bounds)
        decoded = [_decoded(row, rows.SESSION_COLUMNS) for row in found[: query.limit]]
        states = [rows.listed_session(row, query) for row in decoded]
        more = len(found) > query.limit
        return Page(states, rows.encode_cursor(kind, states[-1].updated_at, states[-1].id) if more else None)

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`."""
        rows.check_message_query(query)
        if query.session_id is not None:
            return self._find_of_session(query.session_id, query)
        kind, bounds = f"messages of a user, {query.order} first", Bounds()
        if query.cursor is not None:
            last = _name(rows.decode_cursor(query.cursor, kind, datetime, str)) + b"\0"
            bounds.below(last) if query.order == "newest" else bounds.above(last + END)
        user_id = query.user_id or ""
        found = self._find_named(self._keys.user_messages(user_id), user_id, query, bounds)
        items = [_message(row) for row in found[: query.limit]]
        more = len(found) > query.limit
        return Page(items, rows.encode_cursor(kind, items[-1].created_at, items[-1].id) if more else None)

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`; each session is one step."""
        rows.check_targets(targets)
        gone: list[bytes] = []
        start = 0
        while start < len(targets):
            arguments: list[str | int] = [self._keys.prefix]
            for session_id, version in targets[start : start + _BATCH]:
                arguments += [session_id, "" if version is None else version]
            looked_at, some = self._server.run("delete", (), arguments, repeatable=False)
            gone += some
            start += looked_at
        return [session_id.decode() for session_id in gone]

    def find_turns(self, session_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[TurnRecord]:
        """See `PersistenceAdapter.find_turns`."""
        rows.check_turns_query(session_id, limit)
        after = f"turn:{rows.turns_after(cursor)}"
        arguments: list[str | int] = [self._keys.prefix, after, limit + 1]
        found = self._server.run("find_turns", [self._keys.session(session_id)], arguments)
        return rows.page_of_turns([_decoded(row, rows.TURN_COLUMNS) for row in found], limit)

    def rewrite(
        self,
        session: SessionState | None = None,
        messages: Sequence[Message] = (),
        turns: Sequence[TurnRecord] = (),
    ) -> int:
        """See `PersistenceAdapter.rewrite`."""
        session_row, message_rows, turn_rows = rows.rewritten_rows(session, messages, turns)
        some = [row["session_id"] for row in (*message_rows, *turn_rows)]
        if session_row is None and not some:
            return 0
        session_id = some[0] if session_row is None else session_row["id"]
        arguments: list[str | int] = [
            self._keys.prefix,
            session_id,
            "" if session_row is None else session_row["version"],
            "" if session_row is None else _encoded(session_row),
            len(message_rows),
        ]
        for row in message_rows:
            arguments += [row["id"], _encoded(row)]
        for row in turn_rows:
            arguments += [f"turn:{row['turn_id']}", _encoded(row)]
        return int(self._server.run("rewrite", self._keys_of(session_id), arguments))

    def _keys_of(self, session_id: str) -> list[str]:
        return [self._keys.session(session_id), self._keys.messages(session_id), self._keys.message_ids]

    def _find_of_session(self, session_id: str, query: MessageQuery) -> Page[Message]:
        low = 0 if query.after is None else query.after
        high = query.before
        kind = f"messages of a session, {query.order} first"
        if query.cursor is not None:
            (sequence,) = rows.decode_cursor(query.cursor, kind, int)
            if query.order == "newest":
                high = sequence if high is None else min(high, sequence)
            else:
                low = max(low, sequence)
        found = self._server.run(
            "find_messages",
            [self._keys.messages(session_id)],
            [self._keys.prefix, low, "" if high is None else high, query.order, query.limit + 1],
        )
        items = [_message(_row_of(stored)) for stored in found[: query.limit]]
        more = len(found) > query.limit
        return Page(items, rows.encode_cursor(kind, items[-1].sequence) if more else None)

    def _find_named(
        self, index: str, user_id: str, query: SessionQuery | MessageQuery, bounds: Bounds
    ) -> list[bytes]:
        low, high = bounds.low, bounds.high
        found: list[bytes] = []
        while True:
            wanted = query.limit + 1 - len(found)
            bound, some = self._server.run(
                "find_named", [index], [self._keys.prefix, user_id, query.order, low, high, wanted]
            )
            found += some
            if not bound:
                return found
            low, high = (low, bound) if query.order == "newest" else (bound, high)


def _turn_field(turn_id: str | None) -> str:
    return "" if turn_id is None else f"turn:{rows.turn_key(turn_id)}"


def _name(cursor: Sequence[Any]) -> bytes:
    time, item_id = cursor
    return (sortable(time) + str(item_id)).encode()


def _current(version: bytes | None, count: bytes | None) -> rows.Row | None:
    if version is None or count is None:
        return None
    return {"version": int(version), "message_count": int(count)}


def _row_of(stored: bytes) -> bytes:
    """What stands after the user and the name."""
    return stored.split(b"\0", 2)[2]


def _encoded(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=datetime.isoformat)


def _decoded(text: bytes, columns: Sequence[str]) -> rows.Row:
    try:
        row = json.loads(text)
        if isinstance(row, dict):
            return {**dict.fromkeys(columns), **row}  # a row may be older than a column
    except (ValueError, RecursionError):
        pass
    raise StoreError("a stored row cannot be read") from None


def _session(row: bytes) -> SessionState:
    return rows.session_from_row(_decoded(row, rows.SESSION_COLUMNS))


_MESSAGE = TypeAdapter(Message)


def _message(row: bytes) -> Message:
    try:
        return _MESSAGE.validate_json(row)  # a quarter of the time
    except ValidationError:
        # It has tool calls or an event, which are JSON within the JSON, or cannot be read: this says why.
        return rows.message_from_row(_decoded(row, rows.MESSAGE_COLUMNS))


def _turn(row: bytes, turn_id: str) -> TurnRecord:
    return rows.turn_from_row(_decoded(row, rows.TURN_COLUMNS), turn_id)
