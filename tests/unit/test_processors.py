"""On which processors a worker runs: what is decided, and that it is done for every thread."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from worker.processors import MARGIN, least_used

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinities")
several = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two processors"
)

THREADS = """
import os, threading
from worker.processors import OneProcessor, schedule_as_batch

held = threading.Event()

def start(count):
    for _ in range(count):
        threading.Thread(target=held.wait, daemon=True).start()

def threads():
    return [int(name) for name in os.listdir("/proc/self/task")]

start(3)
"""


def run(script: str) -> str:
    """What it prints, in a process of its own: what it changes would be this one's too."""
    return subprocess.run(
        [sys.executable, "-c", THREADS + script], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


@pytest.mark.parametrize(
    ("current", "used", "best"),
    [
        (0, {0: 0.0, 1: 0.0}, None),
        (0, {0: 0.9, 1: 0.1}, 1),
        (0, {0: 0.1, 1: 0.9}, None),
        (1, {0: 0.5, 1: 0.5, 2: 0.5}, None),
        (1, {0: 0.4, 1: 0.9, 2: 0.1}, 2),
        (0, {0: 0.5, 1: 0.5 - MARGIN / 2}, None),
        (0, {0: 1.0}, None),
    ],
)
def test_it_moves_to_what_others_use_clearly_less(
    current: int, used: dict[int, float], best: int | None
) -> None:
    assert least_used(current, used) == best


@several
def test_all_threads_are_on_one_processor_also_those_that_come_later() -> None:
    told = run(
        """
before = os.sched_getaffinity(0)
one = OneProcessor()
one.start()
start(3)
on = {frozenset(os.sched_getaffinity(each)) for each in threads()}
other = next(each for each in before if each != one.current)
one.move(other)
start(3)
moved = {frozenset(os.sched_getaffinity(each)) for each in threads()}
one.stop()
print(len(on), {len(each) for each in on}, moved == {frozenset({other})},
      {frozenset(os.sched_getaffinity(each)) for each in threads()} == {frozenset(before)})
"""
    )

    assert told == "1 {1} True True"


@several
def test_it_leaves_a_processor_that_somebody_else_fills() -> None:
    told = run(
        """
import subprocess, sys, time
import worker.processors as processors

processors.LOOK_SECONDS = 0.2
processors.MOVES = 1.0
here, there = sorted(os.sched_getaffinity(0))[:2]
processors.random.choice = lambda some: here
processors._Used.by_others_since, real = (
    lambda now, before, current, allowed: {
        each: used if each in (here, current) else 0.0
        for each, used in real(now, before, current, allowed).items()
    },
    processors._Used.by_others_since,
)
loop = f"import os; os.sched_setaffinity(0, [{here}])\\nwhile True: pass"
busy = subprocess.Popen([sys.executable, "-c", loop])
try:
    one = OneProcessor()
    one.start()
    end = time.monotonic() + 50
    while one.current == here and time.monotonic() < end:
        time.sleep(0.1)
    print(one.current != here)
finally:
    busy.kill()
"""
    )

    assert told == "True"


@linux
def test_every_thread_is_scheduled_as_a_batch_program() -> None:
    told = run(
        """
schedule_as_batch()
start(3)
print({os.sched_getscheduler(each) for each in threads()} == {os.SCHED_BATCH})
"""
    )

    assert told == "True"


@linux
def test_another_policy_is_somebodys_choice() -> None:
    told = run(
        """
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
schedule_as_batch()
print(os.sched_getscheduler(0) == os.SCHED_IDLE)
"""
    )

    assert told == "True"
