"""Pressure: how many turns wait in all, and what is done when these are too many."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from inturn.settings import Settings
from inturn.turns.batch import Call, send, send_each
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)

LOOKS = 3
SECONDS = 5.0
"""So many looks long turns are refused, and no shorter than this, unless somebody sees that it is over."""


class Pressure:
    """Refuses new turns everywhere while more wait than `INTURN_MAX_WAITING_TOTAL` (None: never).

    No key is shared by all sessions: each bucket counts its own turns, in the scripts that change their
    number, and who looks adds the counters up. If the sum is too large, every bucket gets a mark that the
    scripts which append see in the same step. All sweepers look, and so does whoever offers turns, at most
    once every `INTURN_SWEEP_SECONDS`. So the limit can be passed by what is accepted in that time.
    """

    def __init__(self, redis: Redis, keys: Keys, settings: Settings, *, most: int | None) -> None:
        self._redis = redis
        self._keys = keys
        self._most = most
        self._every = settings.sweep_seconds
        self._next = 0.0
        self._is_shut = False

    def depth(self) -> int:
        """How many turns wait or run, in all sessions together; one pipeline, however many there are."""
        with redis_errors():
            found = send(self._redis, [Call(depth, ("GET", depth)) for depth in self._keys.depths])
        return _sum(found)

    def look(self) -> None:
        """Compare the number with the limit, and have new turns refused, or taken again."""
        if self._most is None:
            return
        self._next = time.monotonic() + self._every
        with redis_errors():
            found = send_each(self._redis, [Call(depth, ("GET", depth)) for depth in self._keys.depths])
        # Where a node of a cluster is away, what the others have counts, and they go on.
        depth = _sum([each for each in found if not isinstance(each, Exception)])
        if depth >= self._most:
            if not self._is_shut:
                log.warning("too many turns wait; new ones are refused", waiting=depth, limit=self._most)
            self._mark(depth)
            self._is_shut = True
        elif self._is_shut:
            self._mark(None)
            self._is_shut = False
            log.info("new turns are taken again", waiting=depth, limit=self._most)

    def look_now_and_then(self) -> None:
        """Look if it was not done just now: for those who offer, as there may be no worker that sweeps."""
        if self._most is not None and time.monotonic() >= self._next:
            self.look()

    def _mark(self, depth: int | None) -> None:
        lasts = round(max(LOOKS * self._every, SECONDS) * 1000)
        calls = [
            Call(shut, ("DEL", shut) if depth is None else ("SET", shut, depth, "PX", lasts))
            for shut in self._keys.shuts
        ]
        with redis_errors():
            send_each(self._redis, calls)


def _sum(found: Sequence[Any]) -> int:
    return sum(int(value) for value in found if value is not None)
