"""Backlog: what waits in all sessions together, and for how long somebody should have acted on it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from inturn.errors import MailboxError
from inturn.settings import Settings
from inturn.turns.batch import Call, send
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys

if TYPE_CHECKING:
    from prometheus_client import Metric
    from redis import Redis


class Backlog(NamedTuple):
    """What waits now.

    `turns` and `deliveries` count those that wait or run. The `overdue` times are in seconds, of the session
    for which somebody should have acted the longest ago, by this machine's clock; with workers that sweep
    they stay about a second.
    """

    turns: int
    turns_overdue: float
    deliveries: int
    deliveries_overdue: float
    dead_letters: int


class BacklogReader:
    """Adds up what each bucket of Redis has: one pipeline, however many turns wait."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._turns = Keys(settings.key_prefix)
        self._deliveries = Keys(f"{settings.key_prefix}-out")

    def read(self) -> Backlog:
        """Look now. Raises `MailboxUnavailableError` where Redis cannot be reached, `MailboxError`."""
        sizes = [*self._turns.depths, *self._deliveries.depths]
        dead = [keys[0] for keys in self._turns.dead]
        first = [*self._turns.indexes, *self._deliveries.indexes]
        with redis_errors():
            found = send(
                self._redis,
                [
                    *(Call(key, ("GET", key)) for key in sizes),
                    *(Call(key, ("ZCARD", key)) for key in dead),
                    *(Call(key, ("ZRANGE", key, 0, 0, "WITHSCORES")) for key in first),
                ],
            )
        now = time.time() * 1000
        buckets = len(self._turns.depths)
        parts = [found[start : start + buckets] for start in range(0, len(found), buckets)]
        turns, deliveries, letters, due_turns, due_deliveries = parts
        return Backlog(
            turns=sum(int(each or 0) for each in turns),
            turns_overdue=_overdue(due_turns, now),
            deliveries=sum(int(each or 0) for each in deliveries),
            deliveries_overdue=_overdue(due_deliveries, now),
            dead_letters=sum(letters),
        )


def _overdue(first: Sequence[Any], now: float) -> float:
    """How long ago, in seconds, the earliest of these times was; 0 if it is still to come."""
    # As RESP2 gives it, [name, score], or as RESP3 does, [[name, score]].
    due = [float(each[-1][-1] if isinstance(each[-1], list | tuple) else each[-1]) for each in first if each]
    return max(0.0, (now - min(due, default=now)) / 1000)


_FIGURES = {
    "turns": ("inturn_turns_waiting", "Turns that wait or run, in all sessions."),
    "turns_overdue": (
        "inturn_turns_overdue_seconds",
        "For how long turns have been left alone.",
    ),
    "deliveries": ("inturn_deliveries_waiting", "Replies that wait to go out or are sent, in all sessions."),
    "deliveries_overdue": ("inturn_deliveries_overdue_seconds", "The same for sessions with deliveries."),
    "dead_letters": ("inturn_dead_letters", "Turns that failed and were given up."),
}


class BacklogCollector:
    """The backlog as Prometheus reads it, the same from every process; NaN where Redis is away.

    There are no figures as long as there is no `reader`.
    """

    def __init__(self, reader: BacklogReader | None = None) -> None:
        self.reader = reader

    def describe(self) -> Iterator[Metric]:
        """No figures: whoever registers this must not wait for Redis."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """All figures as they are now."""
        from prometheus_client.core import GaugeMetricFamily

        if self.reader is None:
            return
        try:
            found = self.reader.read()._asdict()
        except MailboxError:
            found = {}
        yield GaugeMetricFamily("inturn_redis_up", "Whether Redis answers this process.", value=bool(found))
        for field, (name, text) in _FIGURES.items():
            yield GaugeMetricFamily(name, text, value=found.get(field, math.nan))
