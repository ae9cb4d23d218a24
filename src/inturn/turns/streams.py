"""Streams: the text of replies as it comes, one Redis stream for each turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from inturn.settings import Settings
from inturn.turns.batch import Call, send
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys
from inturn.turns.lease import Lease
from inturn.turns.scripts import Scripts

if TYPE_CHECKING:
    from redis import Redis

MOST_ENTRIES = 10_000
"""Entries that a stream keeps, about; at 20 a second that is over eight minutes of text."""
MOST_READ = 500
"""Entries that one call reads."""
MOST_BLOCKED = 16
"""Readers that may wait in Redis at the same time: each takes one of the client's 32 connections."""


@dataclass(frozen=True, slots=True)
class Write:
    """Text that an owner adds to the stream of the turn it runs.

    `number` counts the owner's writes to this turn, from 1. With `restarts` the reply begins anew with this
    text, with `ends` it is complete.
    """

    lease: Lease
    turn_id: str
    number: int
    text: str
    restarts: bool = False
    ends: bool = False


class Entry(NamedTuple):
    """A write as it is read; the numbers of one `fence` have no gap unless something was lost."""

    fence: int
    number: int
    text: str
    restarts: bool
    ends: bool

    @property
    def id(self) -> str:
        """Its ID in the stream; later ones are greater, by fence and then by number."""
        return f"{self.fence}-{self.number}"


class Streams:
    """All streams on one Redis (or Valkey) server or cluster.

    Raises `MailboxUnavailableError` where Redis cannot be reached, `MailboxError` where it refuses. Every
    call may be repeated.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._keys = Keys(settings.key_prefix)
        self._scripts = Scripts(redis, "emit")
        self._keep_ms = max(1, round(settings.stream_seconds * 1000))
        self._blocked = threading.BoundedSemaphore(MOST_BLOCKED)

    def emit(self, writes: Sequence[Write]) -> None:
        """Write all of these in one round trip; marks the leases that are lost, and the turns to stop."""
        calls = [
            (
                "emit",
                self._keys.of_stream(write.lease.session_id, write.turn_id),
                (
                    write.lease.token,
                    f"{write.lease.fence}-{write.number}",
                    write.text,
                    "r" * write.restarts + "e" * write.ends,
                    MOST_ENTRIES,
                    self._keep_ms,
                ),
            )
            for write in writes
        ]
        for write, (kept, stop) in zip(writes, self._scripts.pipeline(calls), strict=True):
            write.lease.lost = write.lease.lost or not kept
            write.lease.stop = stop or None

    def read(self, session_id: str, turn_id: str, after: str = "0", *, wait: float = 0.0) -> list[Entry]:
        """The entries after this ID, oldest first; where there is none, waits up to `wait` seconds for one.

        Any number of threads may wait: those for which no connection can be spared look again at the end.
        """
        key = self._keys.of_stream(session_id, turn_id)[1]
        blocks = wait > 0 and self._blocked.acquire(blocking=False)
        try:
            if wait > 0 and not blocks:
                time.sleep(wait)
            with redis_errors():
                block = ("BLOCK", max(1, round(wait * 1000))) if blocks else ()
                found: Any = send(self._redis, [_read(key, after, *block)])[0]
        finally:
            if blocks:
                self._blocked.release()
        return _entries(found)

    def read_all(self, places: Sequence[tuple[str, str, str]]) -> list[list[Entry]]:
        """The entries of many turns, each as (session ID, turn ID, after), in one round trip; never waits.

        At most `MOST_READ` of each: where there are that many, there may be more.
        """
        if not places:
            return []
        calls = [
            _read(self._keys.of_stream(session_id, turn_id)[1], after)
            for session_id, turn_id, after in places
        ]
        with redis_errors():
            return [_entries(found) for found in send(self._redis, calls)]


def _read(key: str, after: str, *block: str | int) -> Call:
    return Call(key, ("XREAD", "COUNT", MOST_READ, *block, "STREAMS", key, after))


def _entries(found: Any) -> list[Entry]:
    # By the version of the protocol that the URL asks for.
    lists = (
        [some[0] for some in found.values()] if isinstance(found, dict) else [some[1] for some in found or ()]
    )
    return [_entry(entry_id, fields) for entries in lists for entry_id, fields in entries]


def _entry(entry_id: str, fields: dict[str, str]) -> Entry:
    fence, _, number = entry_id.partition("-")
    marks = fields["marks"]
    return Entry(int(fence), int(number), fields["text"], "r" in marks, "e" in marks)
