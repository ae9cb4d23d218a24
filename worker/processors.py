"""Processors: on which of the machine's processors this process runs, and how the kernel sees its threads.

CPython runs Python in one thread at a time. A worker's threads hand its lock on whenever they ask a server,
many times a turn, and where the next one sleeps on another processor, waking it there may cost more than the
work in between. Two ways to have less of that, both of them Linux's:

- Every worker is scheduled as a batch program: who wakes up does not push aside who runs.
- With `INTURN_ONE_PROCESSOR` all threads of the process keep to one processor, and move together to one that
  others use less. (nginx binds its processes for good, with `worker_cpu_affinity`.) It is a choice, because
  what lets go of the lock to compute, as numpy does, then has no other processor to do so.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""How often a process looks whether others want its processor."""
MARGIN = 0.2
"""By how much less others must use another processor, as a part of it, for a process to move there."""
MOVES = 0.5
"""How likely a process moves then: of two that share a processor both would."""


def schedule_as_batch() -> None:
    """Have the threads of this process, and those that they start, scheduled as a batch program.

    Nothing happens where somebody has chosen another policy, where it is refused, or on other systems.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    for thread in _threads():
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(thread) == os.SCHED_OTHER:
                os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


class OneProcessor:
    """Keeps all threads of this process on one of the processors it may use, and moves them together."""

    def __init__(self) -> None:
        affinity = getattr(os, "sched_getaffinity", None)
        self._allowed = frozenset(affinity(0)) if affinity is not None else frozenset[int]()
        self.current: int | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Choose a processor, and begin to look; nothing happens where there is no choice."""
        if len(self._allowed) < 2:
            return
        self.move(random.choice(sorted(self._allowed)))
        self._thread = threading.Thread(target=self._run, name="inturn-processor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Have the process run wherever it may, as before."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            _set_affinity(self._allowed)
            self.current = None

    def move(self, processor: int) -> None:
        """Have all threads run on this one, and those that they start."""
        self.current = processor
        _set_affinity({processor})

    def _run(self) -> None:
        before = _Used.now()
        while not self._stopped.wait(LOOK_SECONDS * random.uniform(0.8, 1.2)):
            try:
                now = _Used.now()
                assert self.current is not None
                used = now.by_others_since(before, self.current, self._allowed)
                better = least_used(self.current, used)
                if better is not None and random.random() < MOVES:
                    self.move(better)
                before = now
            except (OSError, ValueError) as error:
                log.warning("processor not looked at", error=str(error))


def least_used(current: int, used_by_others: Mapping[int, float]) -> int | None:
    """The processor to move to, of which others use the least part; None: stay."""
    best = min(used_by_others, key=lambda processor: (used_by_others[processor], processor != current))
    return best if used_by_others[current] - used_by_others[best] > MARGIN else None


class _Used:
    """Seconds of each processor that were used until now, and those of this process; and when that was."""

    def __init__(self, at: float, busy: Mapping[int, float], own: float) -> None:
        self._at = at
        self._busy = busy
        self._own = own

    @classmethod
    def now(cls) -> _Used:
        """As it stands; Linux tells how each processor has spent its time (proc_stat(5))."""
        ticks = os.sysconf("SC_CLK_TCK")
        busy: dict[int, float] = {}
        for line in Path("/proc/stat").read_text().splitlines():
            name, *times = line.split()
            if name.startswith("cpu") and name != "cpu":
                user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
                    int, [*times, *"0" * 8][:10]
                )
                busy[int(name[3:])] = (user + nice + system + irq + softirq + steal) / ticks
        return cls(time.monotonic(), busy, time.process_time())

    def by_others_since(self, before: _Used, current: int, processors: frozenset[int]) -> dict[int, float]:
        """The part of each of these processors that others have used, where we were on `current`."""
        elapsed = max(self._at - before._at, 0.001)
        used = {
            processor: (self._busy[processor] - before._busy[processor]) / elapsed
            for processor in processors
            if processor in self._busy and processor in before._busy
        }
        used[current] = max(0.0, used.get(current, 0.0) - (self._own - before._own) / elapsed)
        return used


def _threads() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir("/proc/self/task")]
    return [0]


def _set_affinity(processors: frozenset[int] | set[int]) -> None:
    # Once more for those that were started meanwhile by a thread that was not moved yet.
    for thread in (*_threads(), *_threads()):
        with contextlib.suppress(OSError):  # it has ended
            os.sched_setaffinity(thread, processors)
