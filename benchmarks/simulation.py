"""A simulation of workers: sessions whose turns go one at a time, through a queue, into so many slots.

Event by event, with the rules of the real thing: a turn of a session that waits or runs stands behind it and
holds no slot; whoever drives a session takes its next turn without a way through the queue, and gives others
their turn after `DRIVE_TURNS` of them. It knows nothing of processes: a message waits in the broker until
some slot is free, wherever that is.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

DRIVE_TURNS = 8
"""As `INTURN_DRIVE_TURNS`; what `INTURN_DRIVE_SECONDS` adds to it makes no difference to a mean."""


@dataclass(frozen=True)
class Arrival:
    """A turn that comes in: `at` seconds from the beginning, and how many its slot will be taken by it."""

    at: float
    session: int
    seconds: float


@dataclass(frozen=True)
class Waits:
    """What became of turns: seconds from arrival to begin, in no order.

    `queued` are the waits of turns that found their session idle: for a slot, and for nothing else.
    `utilisation` is the share of all slots' time that turns took, while there were new ones; it may exceed 1.
    """

    waits: Sequence[float]
    queued: Sequence[float]
    utilisation: float

    @property
    def mean(self) -> float:
        """Of all waits; 0 where there are none."""
        return sum(self.waits) / len(self.waits) if self.waits else 0.0

    def quantile(self, share: float) -> float:
        """The wait that this share of the turns does not exceed."""
        return quantile(self.waits, share)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of `values` does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def arrivals(
    *,
    per_second: float,
    seconds: float,
    variation: float,
    burst: float,
    sessions: int,
    until: float,
    seed: int,
) -> list[Arrival]:
    """Turns until so many seconds from the beginning.

    Bursts come at random (Poisson), and hold so many turns on average (geometric); 1 is no bursts. A turn
    takes `seconds` on average, lognormal, with the standard deviation `variation` times that. Its session is
    any of them.
    """
    # Each has numbers of its own, so that two loads of the same seed differ in what was changed only.
    when, size, which, long = (random.Random(f"{seed} {part}") for part in ("when", "size", "which", "long"))
    sigma = math.sqrt(math.log1p(variation**2))
    mu = math.log(seconds) - sigma**2 / 2
    made: list[Arrival] = []
    at = 0.0
    while (at := at + when.expovariate(per_second / burst)) < until:
        while True:
            made.append(Arrival(at, which.randrange(sessions), long.lognormvariate(mu, sigma)))
            if size.random() < 1 / burst:
                break
    return made


def simulate(turns: Sequence[Arrival], *, slots: int, overhead: float = 0.0, warm_up: float = 0.0) -> Waits:
    """Let the turns, in order of arrival, go through so many slots.

    `overhead` are seconds of a slot that each turn takes beside its own. Turns that arrive within the
    `warm_up` are not counted: nobody waits in the beginning.
    """
    waiting: dict[int, deque[Arrival]] = {}
    runnable: deque[int] = deque()
    ends: list[tuple[float, int, int]] = []
    waits: list[float] = []
    queued: list[float] = []
    idle: set[int] = set()
    free, busy = slots, 0.0

    def begin(session: int, now: float, driven: int) -> None:
        nonlocal busy
        turn = waiting[session][0]
        if turn.at >= warm_up:
            waits.append(now - turn.at)
            if id(turn) in idle:
                queued.append(now - turn.at)
        busy += overhead + turn.seconds
        heapq.heappush(ends, (now + overhead + turn.seconds, session, driven))

    def fill(now: float) -> None:
        nonlocal free
        while free and runnable:
            free -= 1
            begin(runnable.popleft(), now, 1)

    def end() -> None:
        nonlocal free
        now, session, driven = heapq.heappop(ends)
        line = waiting[session]
        line.popleft()
        if line and driven < DRIVE_TURNS:
            begin(session, now, driven + 1)
            return
        free += 1
        if line:
            runnable.append(session)
        else:
            del waiting[session]
        fill(now)

    for turn in turns:
        while ends and ends[0][0] <= turn.at:
            end()
        if turn.session in waiting:
            waiting[turn.session].append(turn)
        else:
            idle.add(id(turn))
            waiting[turn.session] = deque([turn])
            runnable.append(turn.session)
            fill(turn.at)
    while ends:
        end()
    lasted = turns[-1].at - turns[0].at if turns else 0.0
    return Waits(waits, queued, busy / (slots * lasted) if lasted else 0.0)
