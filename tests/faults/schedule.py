"""The schedule of a run: which fault comes when; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

from tests.faults.control import POINTS

PER_MINUTE: dict[str, float] = {
    "kill": 1.5,
    "kill delivery": 0.5,
    "pause": 1.2,
    "pause delivery": 0.5,
    "warm shutdown": 1.2,
    "cold shutdown": 1.2,
    "valkey restart": 0.5,
    "valkey crash": 0.3,
    "postgres restart": 0.5,
    "postgres crash": 0.3,
    "terminate backends": 2,
    "cut redis": 2,
    "cut postgres": 2,
    "lose redis": 2,
    "lose postgres": 2,
    "delay redis": 1,
    "delay postgres": 1,
}
"""How often each fault comes; each comes once at least. Crash points have a number of their own."""

OUTAGES = ("valkey outage", "valkey restart", "valkey crash", "postgres restart", "postgres crash")


class Fault(NamedTuple):
    """A fault that is due so many seconds after the start; of a crash point the name is `die <point>`."""

    due: float
    name: str


def make_schedule(seconds: float, *, hits: int, outages: int, seed: int) -> list[Fault]:
    """All faults of a run whose load lasts `seconds`, in their order.

    Each crash point is armed `hits` times. The rolling restart comes in the middle.
    """
    chance = random.Random(seed)
    names = [f"die {point}" for point in POINTS for _ in range(hits)]
    names += [name for name, rate in PER_MINUTE.items() for _ in range(max(1, round(rate * seconds / 60)))]
    names += ["valkey outage"] * outages
    end = seconds * 0.9
    faults = []
    for name, count in _counted(names).items():
        # One in each stretch of the time: spread, and yet not regular.
        stretch = end / count
        faults += [Fault((place + chance.random()) * stretch, name) for place in range(count)]
    faults.append(Fault(seconds * 0.4, "rolling restart"))
    return sorted(faults)


def _counted(names: list[str]) -> Mapping[str, int]:
    return {name: names.count(name) for name in dict.fromkeys(names)}
