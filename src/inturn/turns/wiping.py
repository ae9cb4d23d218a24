"""Wiping: what Redis has of one user: the mailboxes and streams of their sessions, and their own keys."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from inturn.settings import Settings
from inturn.turns.batch import Call, send
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys
from inturn.turns.scripts import Scripts

if TYPE_CHECKING:
    from redis import Redis

_AT_ONCE = 500


class Wiped(NamedTuple):
    """A mailbox that was emptied: the turns that were in it, and all that it knows of, these included."""

    turns: list[str]
    known: list[str]


class Found(NamedTuple):
    """Keys of a user, by what they are."""

    streams: list[str]
    claims: list[str]
    tickets: list[str]
    limits: list[str]


class Wiper:
    """Removes it. Every call may be repeated.

    `scan`, and so `claimed`, goes over the names of all keys of our prefix, a thousand at a time. Raises
    `MailboxUnavailableError` where Redis cannot be reached, `MailboxError` where it refuses.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._prefix = settings.key_prefix
        self._keys = Keys(settings.key_prefix)
        self._out = Keys(f"{settings.key_prefix}-out")
        self._outcomes = f"{settings.key_prefix}-out:outcomes"
        self._scripts = Scripts(redis, "wipe", common="common")
        self._done_ms = round(settings.done_seconds * 1000)

    def wipe(self, session_ids: Sequence[str]) -> list[Wiped]:
        """Empty the mailboxes of these sessions, whatever waits or runs there."""
        return self._wipe(self._keys, session_ids)

    def wipe_deliveries(self, session_ids: Sequence[str]) -> int:
        """The same for the replies on their way out, and what is told of those that ended; gives how many."""
        removed = sum(len(wiped.turns) for wiped in self._wipe(self._out, session_ids))
        ids = set(session_ids)
        with redis_errors():
            # Their items' IDs are needed by nobody, and hold those of the turns.
            send(self._redis, [_unlink(self._out.of_session(each)[4]) for each in session_ids])
            told: Any = self._redis.xrange(self._outcomes)
            gone = [entry for entry, fields in told if fields["session"] in ids]
            if gone:
                self._redis.xdel(self._outcomes, *gone)
        return removed + len(gone)

    def claimed(self, user_id: str) -> list[str]:
        """The sessions that the user has begun by the web API, as far as Redis remembers."""
        keys = self._of_user(self._names(f"{_escaped(self._prefix)}:{{*}}:u:*"), user_id)
        return [key.split("}:u:", 1)[1] for key in keys]

    def scan(self, user_id: str, session_ids: Collection[str]) -> Found:
        """Find what is no mailbox."""
        found = Found([], [], [], [])
        ids, whose = set(session_ids), quote(f"user:{user_id}", safe="")
        tickets: list[str] = []
        for key in self._names(f"{_escaped(self._prefix)}:*"):
            rest = key[len(self._prefix) + 1 :]
            kind = rest.partition("}:")[2][:2]
            if kind == "s:":
                if unquote(rest.partition("}:s:")[2].partition(":")[0]) in ids:
                    found.streams.append(key)
            elif kind == "u:":
                found.claims.append(key)
            elif rest.startswith("ticket:"):
                tickets.append(key)
            elif rest.startswith("limit") and f"/{whose}/" in rest:
                found.limits.append(key)
        mine = set(self._of_user(found.claims, user_id))
        found.claims[:] = [key for key in found.claims if key in mine or key.split("}:u:", 1)[1] in ids]
        for key, value in self._values(tickets):
            turn_id, _, holder = json.loads(value)
            if holder == user_id or unquote(turn_id.partition(":")[0]) in ids:
                found.tickets.append(key)
        return found

    def remove(self, keys: Sequence[str]) -> int:
        """Remove keys; returns how many were there."""
        with redis_errors():
            return sum(send(self._redis, [_unlink(key) for key in keys]))

    def _wipe(self, keys: Keys, session_ids: Sequence[str]) -> list[Wiped]:
        calls = [("wipe", keys.of_session(each), (each, self._done_ms)) for each in session_ids]
        return [Wiped(*reply) for reply in self._scripts.pipeline(calls)]

    def _names(self, pattern: str) -> Iterator[str]:
        with redis_errors():
            yield from self._redis.scan_iter(match=pattern, count=1000)

    def _of_user(self, keys: Iterator[str] | Sequence[str], user_id: str) -> list[str]:
        return [key for key, value in self._values(list(keys)) if json.loads(value) == user_id]

    def _values(self, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            with redis_errors():
                values = send(self._redis, [Call(key, ("GET", key)) for key in some])
            yield from ((key, value) for key, value in zip(some, values, strict=True) if value is not None)


def _unlink(key: str) -> Call:
    return Call(key, ("UNLINK", key))


def _escaped(text: str) -> str:
    """Text that stands for itself in a pattern."""
    return "".join(f"\\{char}" if char in "*?[]\\^" else char for char in text)
