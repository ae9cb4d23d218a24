"""in_flight: how many turns one worker process has in hand at once, and what each of them costs.

1,000 turns of a 20 s model in 1,000 sessions, all at once: they should take little more than 20 s. And 2,000
turns of a 1 s model, 200 at once, for what a turn costs. On threads and on gevent, all else as shipped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.peers.lab import Run, lab
from benchmarks.peers.report import Report
from benchmarks.peers.roster import inturn
from benchmarks.peers.work import Plan

TASKS = {"many": (1000, 1000, 20.0), "short": (2000, 200, 1.0)}
"""Turns, how many at once, and the seconds that the model takes."""


def main() -> None:
    """Run it; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.in_flight", description=__doc__)
    parser.add_argument("tasks", nargs="*", help=f"of {', '.join(TASKS)}; both without any")
    parser.add_argument("--pool", action="append", choices=("threads", "gevent"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--logs", type=Path, help="a directory for what the workers say")
    given = parser.parse_args()
    if unknown := set(given.tasks) - TASKS.keys():
        parser.error(f"no such task: {', '.join(sorted(unknown))}")
    report = Report("in_flight")
    with lab(given.logs) as own:
        for _ in range(given.rounds):
            for task in given.tasks or TASKS:
                turns, slots, latency = TASKS[task]
                plan = Plan("interleaved", latency, turns, 1)
                for pool in given.pool or ("threads", "gevent"):
                    peer = inturn(f"inturn on {pool}", pool=pool, slots=slots)
                    report.add(_title(task), own.measure(peer, plan, gated=False))
    report.show(
        {
            "at once": lambda run: float(run.verdict.at_once),
            "to ideal": _to_ideal,
            "CPU ms": lambda run: run.cpu_ms,
            "MB": lambda run: run.rss_mb,
            "threads": lambda run: float(run.threads),
        }
    )


def _title(task: str) -> str:
    turns, slots, latency = TASKS[task]
    return f"{turns:,} turns of {latency:g} s, {slots:,} at once"


def _to_ideal(run: Run) -> float | None:
    """The time of the whole run to that of a machine on which only the model takes time."""
    for turns, slots, latency in TASKS.values():
        if turns == run.verdict.turns:
            return run.verdict.seconds / (latency * turns / slots)
    return None


if __name__ == "__main__":
    main()
