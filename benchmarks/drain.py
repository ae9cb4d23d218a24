"""drain: 10,000 turns wait in 1,000 sessions; how long until none is left, and what each has cost on the way.

They were enqueued as bursts, before the worker came; the model takes no time. Printed are the messages that a
queue was asked for, Redis' commands (those inside of scripts too) and scripts, the statements of the
database, and the bytes of Redis that a turn takes which waits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.peers.lab import lab
from benchmarks.peers.report import Report
from benchmarks.peers.roster import PEERS
from benchmarks.peers.work import Plan


def main() -> None:
    """Run it; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drain", description=__doc__)
    parser.add_argument(
        "peers", nargs="*", help=f"of {', '.join(PEERS)}; inturn and plain Celery without any"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--logs", type=Path, help="a directory for what the workers say")
    given = parser.parse_args()
    if unknown := set(given.peers) - PEERS.keys():
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    report = Report("drain")
    plan = Plan("bursts", 0.0, given.sessions, 10)
    with lab(given.logs) as own:
        for _ in range(given.rounds):
            for name in given.peers or ("inturn", "celery-unlocked"):
                report.add(f"{len(plan.all()):,} turns", own.measure(PEERS[name], plan))
    report.show(
        {
            "seconds": lambda run: run.verdict.seconds,
            "messages": lambda run: run.messages,
            "commands": lambda run: run.commands,
            "scripts": lambda run: run.scripts,
            "statements": lambda run: run.statements,
            "bytes": lambda run: float(run.waiting_bytes),
            "CPU ms": lambda run: run.cpu_ms,
        }
    )


if __name__ == "__main__":
    main()
