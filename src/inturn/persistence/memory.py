"""MemoryAdapter: everything in this process's memory; the reference the other backends are measured by."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

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
from inturn.persistence.pages import page_of_messages, page_of_sessions
from inturn.session.state import Message, SessionState, TurnRecord


class MemoryAdapter(PersistenceAdapter):
    """Keeps rows in dictionaries: for tests, for development, for one process.

    Rows are encoded as for any other backend, so nothing that was given or returned is shared with what is
    stored.
    """

    durable: ClassVar[bool] = False
    supports_rewriting: ClassVar[bool] = True

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sessions: dict[str, rows.Row] = {}
        self._messages: dict[str, list[rows.Row]] = {}
        self._message_ids: set[str] = set()
        self._turns: dict[str, dict[str, rows.Row]] = {}

    def initialize(self) -> None:
        """Nothing is needed."""

    def close(self) -> None:
        """Nothing was opened; what is stored stays."""

    def ping(self) -> None:
        """Memory answers."""

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._sessions.clear()
            self._messages.clear()
            self._message_ids.clear()
            self._turns.clear()

    def get_snapshot(self) -> dict[str, list[dict[str, Any]]]:
        """Copy all rows, by table: `sessions`, `messages` and `turns`."""
        with self._lock:
            return {
                "sessions": [dict(row) for row in self._sessions.values()],
                "messages": [dict(row) for some in self._messages.values() for row in some],
                "turns": [dict(row) for some in self._turns.values() for row in some.values()],
            }

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """See `PersistenceAdapter.load`."""
        rows.check_load(session_id, last_messages, turn_id)
        with self._lock:
            row = self._sessions.get(session_id)
            if row is None:
                return None
            messages = self._messages[session_id][-last_messages:] if last_messages > 0 else []
            turn = self._turns[session_id].get(rows.turn_key(turn_id)) if turn_id is not None else None
        return Loaded(
            rows.session_from_row(row),
            [rows.message_from_row(message) for message in messages],
            rows.turn_from_row(turn, turn_id) if turn is not None and turn_id is not None else None,
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
        new_session = rows.session_row(saved)
        new_messages = [rows.message_row(message) for message in numbered]
        new_turn = None if turn is None else rows.turn_row(turn)
        with self._lock:
            if turn is not None and new_turn is not None:
                known = self._turns.get(session.id, {}).get(new_turn["turn_id"])
                if known is not None:
                    return Committed(session, [], rows.turn_from_row(known, turn.turn_id), repeated=True)
            rows.check_current(session, expected_version, self._sessions.get(session.id))
            ids = {message["id"] for message in new_messages}
            if len(ids) < len(new_messages) or not self._message_ids.isdisjoint(ids):
                raise rows.taken_message_id()
            self._message_ids |= ids
            self._sessions[session.id] = new_session
            self._messages.setdefault(session.id, []).extend(new_messages)
            turns = self._turns.setdefault(session.id, {})
            if new_turn is not None:
                turns[new_turn["turn_id"]] = new_turn
        return Committed(saved, numbered, turn)

    def recorded(self, session_id: str, turn_ids: Sequence[str]) -> Recorded:
        """See `PersistenceAdapter.recorded`."""
        keys = rows.turn_keys(session_id, turn_ids)
        with self._lock:
            row = self._sessions.get(session_id)
            known = self._turns.get(session_id, {}).keys() & keys.keys()
        return Recorded(0 if row is None else row["version"], frozenset(keys[key] for key in known))

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        with self._lock:
            found = list(self._sessions.values())
        return page_of_sessions(found, query)

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`."""
        rows.check_message_query(query)
        if query.session_id is not None:
            return self._find_of_session(query.session_id, query)
        with self._lock:
            found = [row for some in self._messages.values() for row in some]
        return page_of_messages(found, query)

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`."""
        rows.check_targets(targets)
        gone = []
        with self._lock:
            for session_id, version in targets:
                row = self._sessions.get(session_id)
                if row is not None and version in (None, row["version"]):
                    del self._sessions[session_id], self._turns[session_id]
                    self._message_ids -= {message["id"] for message in self._messages.pop(session_id)}
                    gone.append(session_id)
        return gone

    def find_turns(self, session_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[TurnRecord]:
        """See `PersistenceAdapter.find_turns`."""
        rows.check_turns_query(session_id, limit)
        after = rows.turns_after(cursor)
        with self._lock:
            found = sorted(self._turns.get(session_id, {}).items())
        return rows.page_of_turns([row for key, row in found if key > after], limit)

    def rewrite(
        self,
        session: SessionState | None = None,
        messages: Sequence[Message] = (),
        turns: Sequence[TurnRecord] = (),
    ) -> int:
        """See `PersistenceAdapter.rewrite`."""
        new_session, new_messages, new_turns = rows.rewritten_rows(session, messages, turns)
        done = 0
        with self._lock:
            if new_session is not None:
                row = self._sessions.get(new_session["id"])
                if row is not None and row["version"] == new_session["version"]:
                    row.update({name: new_session[name] for name in rows.REWRITTEN_OF_A_SESSION})
                    done += 1
            for new in new_messages:
                for row in self._messages.get(new["session_id"], ()):
                    if row["id"] == new["id"]:
                        row.update({name: new[name] for name in rows.REWRITTEN_OF_A_MESSAGE})
                        done += 1
            for new in new_turns:
                row = self._turns.get(new["session_id"], {}).get(new["turn_id"])
                if row is not None:
                    row["result"] = new["result"]
                    done += 1
        return done

    def _find_of_session(self, session_id: str, query: MessageQuery) -> Page[Message]:
        low = query.after if query.after is not None else 0
        high = query.before
        newest, kind = query.order == "newest", f"messages of a session, {query.order} first"
        if query.cursor is not None:
            (sequence,) = rows.decode_cursor(query.cursor, kind, int)
            if newest:
                high = sequence if high is None else min(high, sequence)
            else:
                low = max(low, sequence)
        with self._lock:
            stored = self._messages.get(session_id, [])
            start = bisect.bisect_right(stored, low, key=lambda row: row["sequence"])
            end = (
                len(stored)
                if high is None
                else bisect.bisect_left(stored, high, key=lambda row: row["sequence"])
            )
            if newest:
                page = stored[max(start, end - query.limit) : end][::-1]
            else:
                page = stored[start : min(end, start + query.limit)]
            more = end - start > query.limit
        return Page(
            [rows.message_from_row(row) for row in page],
            rows.encode_cursor(kind, page[-1]["sequence"]) if more else None,
        )
