"""Outcome: what a run is asked for, and what it tells in the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is like; all of it can be said on the command line."""

    turns: int = 20_000
    sessions: int = 500
    seed: int = 1
    minutes: float = 7.0
    hits: int = 22
    outages: int = 2
    outage_seconds: float = 10.0
    workers: int = 4
    concurrency: int = 12
    producers: int = 3
    model_seconds: float = 0.02
    drain_seconds: float = 300.0
    short: bool = False
    faults: bool = True
    plant: str = ""
    only: str = ""


@dataclass(slots=True)
class Outcome:
    """All that a report tells."""

    options: Options
    seconds: float = 0.0
    load_seconds: float = 0.0
    accepted: int = 0
    committed: int = 0
    failed: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    points: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    violations: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    recovery: dict[str, dict[str, float]] = field(default_factory=dict)
    deliveries: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no violation of any kind."""
        return not any(self.violations.values())
