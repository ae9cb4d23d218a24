"""JournalAdapter: sessions in one file of JSON lines; docs/custom-adapter.md explains it."""
# ruff: noqa: D102 (what each primitive promises is said in inturn.persistence.adapter)

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from inturn.errors import StoreUnavailableError
from inturn.persistence import PersistenceAdapter, pages, rows
from inturn.persistence.adapter import Committed, Loaded, MessageQuery, Page, SessionQuery, Target
from inturn.session import Message, SessionState, TurnRecord


class JournalAdapter(PersistenceAdapter):
    """Each line of the file is a commit or a deletion. Threads and processes of one machine may share it:
    an adapter keeps in memory what the lines say, and reads those of others before it answers."""

    def __init__(self, path: str) -> None:
        self._path, self._lock, self._end = os.path.abspath(path), threading.Lock(), 0
        self._stored: dict[str, dict[str, Any]] = {}  # by session: its row, its messages, its turns
        self._message_ids: set[str] = set()

    def ping(self) -> None:
        with self._journal():
            pass

    initialize = ping  # whoever opens the file creates it

    def close(self) -> None:
        pass  # nothing stays open between two calls

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        rows.check_load(session_id, last_messages, turn_id)
        with self._journal():
            stored = self._stored.get(session_id)
            if stored is None:
                return None
            session = rows.session_from_row(stored["session"])
            newest = stored["messages"][-last_messages:] if last_messages else []
            turn = self._turn(session_id, turn_id) if turn_id else None
        return Loaded(session, [rows.message_from_row(row) for row in newest], turn)

    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        saved, numbered = rows.next_commit(session, messages, expected_version, turn)
        row, said = rows.session_row(saved), [rows.message_row(message) for message in numbered]
        turns = [rows.turn_row(turn)] if turn else []
        with self._journal() as entries:
            if turn and (known := self._turn(session.id, turn.turn_id)):
                return Committed(session, [], known, repeated=True)
            rows.check_current(session, expected_version, self._stored.get(session.id, {}).get("session"))
            if len({message.id for message in numbered} - self._message_ids) < len(numbered):
                raise rows.taken_message_id()
            entries.append({"session": row, "messages": said, "turns": turns})
        return Committed(saved, numbered, turn)

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        with self._journal():
            return pages.page_of_sessions((s["session"] for s in self._stored.values()), query)

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        with self._journal():
            return pages.page_of_messages((m for s in self._stored.values() for m in s["messages"]), query)

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        rows.check_targets(targets)
        with self._journal() as entries:
            there = {id: s["session"]["version"] for id, s in self._stored.items()}
            found = [id for id, version in targets if id in there and version in (None, there[id])]
            entries.append({"deleted": list(dict.fromkeys(found))})
        return list(dict.fromkeys(found))

    def _turn(self, session_id: str, turn_id: str) -> TurnRecord | None:
        row = self._stored.get(session_id, {}).get("turns", {}).get(rows.turn_key(turn_id))
        return row and rows.turn_from_row(row, turn_id)

    @contextmanager
    def _journal(self) -> Iterator[list[dict[str, Any]]]:
        entries: list[dict[str, Any]] = []
        try:
            with self._lock, open(self._path, "a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
                file.seek(self._end)
                for line in file:
                    if line.endswith(b"\n"):  # if not, its writer was killed, and nothing of it counts
                        self._apply(line)
                yield entries
                for entry in entries:
                    line = json.dumps(entry, default=datetime.isoformat).encode() + b"\n"
                    file.truncate(self._end)  # what a killed writer has left
                    file.write(line)
                    file.flush()
                    os.fsync(file)
                    self._apply(line)
        except OSError as error:
            raise StoreUnavailableError(f"the journal cannot be used: {error.strerror}") from error

    def _apply(self, line: bytes) -> None:
        self._end += len(line)
        entry = json.loads(line)
        for session_id in entry.get("deleted", ()):
            self._message_ids -= {row["id"] for row in self._stored.pop(session_id)["messages"]}
        if session := entry.get("session"):
            stored = self._stored.setdefault(session["id"], {"messages": [], "turns": {}})
            stored["session"] = session
            stored["messages"] += entry["messages"]
            stored["turns"] |= {row["turn_id"]: row for row in entry["turns"]}
            self._message_ids |= {row["id"] for row in entry["messages"]}
