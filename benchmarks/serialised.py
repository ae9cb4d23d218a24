"""serialised: the turns of 200 sessions, ten each, on every queue that could run them, and who kept order.

They are enqueued interleaved (one turn of each session after the other) or in bursts (each session's turns
back to back), for a model that takes no time or 100 ms. Peers take turns within a round, in changing order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.peers.lab import lab
from benchmarks.peers.report import Report
from benchmarks.peers.roster import PEERS
from benchmarks.peers.work import Plan

BASE = "celery-unlocked"
"""What all others are compared with: it does the same work, and keeps nothing in order."""


def main() -> None:
    """Run it; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serialised", description=__doc__)
    parser.add_argument("peers", nargs="*", help=f"of {', '.join(PEERS)}; all without any")
    parser.add_argument("--kind", action="append", choices=("interleaved", "bursts"))
    parser.add_argument("--latency", action="append", type=float, help="seconds; 0 and 0.1 without any")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--logs", type=Path, help="a directory for what the workers say")
    given = parser.parse_args()
    if unknown := set(given.peers) - PEERS.keys():
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    names = given.peers or list(PEERS)
    report = Report("serialised", base=BASE)
    with lab(given.logs) as own:
        for number in range(given.rounds):
            for kind in given.kind or ("interleaved", "bursts"):
                for latency in given.latency or (0.0, 0.1):
                    plan = Plan(kind, latency, given.sessions, given.turns)
                    place = number % len(names)
                    for name in [*names[place:], *names[:place]]:
                        report.add(f"{kind}, {latency * 1000:g} ms", own.measure(PEERS[name], plan))
    report.show()


if __name__ == "__main__":
    main()
