"""Holding: who drives a session now, and a tag that changes with whatever its mailbox does."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from inturn.turns.batch import Call, send
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys

if TYPE_CHECKING:
    from redis import Redis


class Holding(NamedTuple):
    """A session's lease as it is now.

    `owner` is the token of who has it, `host:process:random`, or had it last and did not give it back; then
    `seconds`, which is how long it lasts unless it is renewed, is 0. `asleep` is for how many seconds yet the
    head waits for its next try. `stop` names the turn that somebody asked to stop.
    """

    owner: str | None
    seconds: float
    fence: int
    asleep: float
    stop: str | None

    @property
    def is_live(self) -> bool:
        """Whether somebody has the lease."""
        return self.owner is not None and self.seconds > 0


class Holdings:
    """Looks at leases, and changes nothing.

    `prefix` is that of the keys: that of the settings for turns, with `-out` behind it for deliveries.
    Raises `MailboxUnavailableError` where Redis cannot be reached, `MailboxError` where it refuses.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._keys = Keys(prefix)

    def look(self, session_id: str) -> Holding:
        """See who has the session's lease."""
        state = self._keys.of_session(session_id)[3]
        with redis_errors():
            calls = [
                Call(state, ("HMGET", state, "owner", "until", "fence", "sleep", "stop")),
                Call(state, ("TIME",)),
            ]
            (owner, until, fence, sleep, stop), (seconds, microseconds) = send(self._redis, calls)
        now = seconds * 1000 + microseconds / 1000
        return Holding(
            owner, _left(until, now) if owner else 0.0, int(fence or 0), _left(sleep, now), stop or None
        )

    def tag(self, session_id: str) -> str:
        """What changes whenever a turn of the session comes, begins, fails for now, ends or is dropped.

        It tells nothing of what it was made of. A lease that is renewed does not change it.
        """
        _, queue, _, state, done, *_ = self._keys.of_session(session_id)
        with redis_errors():
            calls = [
                Call(queue, ("LRANGE", queue, 0, -1)),
                Call(state, ("HGETALL", state)),
                Call(done, ("ZCARD", done)),
                Call(done, ("ZREVRANGE", done, 0, 0, "WITHSCORES")),
            ]
            waiting, found, *ended = send(self._redis, calls)
        facts: dict[str, Any] = {name: value for name, value in found.items() if name != "until"}
        text = json.dumps([waiting, facts, ended], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _left(until: str | None, now: float) -> float:
    return max(0.0, (float(until or 0) - now) / 1000)
