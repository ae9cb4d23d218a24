"""hot: what one session with very many turns costs the others, and itself.

500 turns of one session are enqueued first, then those of 100 others, five each; the model takes 20 ms.
The same without the hot session, and the hot session alone, are run beside it: the others should take no more
than 1.2 times as long as without it, and the hot session no more than 1.3 times as long as alone, one turn
after the other.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from benchmarks.peers.lab import Run, lab
from benchmarks.peers.report import Report
from benchmarks.peers.roster import PEERS
from benchmarks.peers.work import Plan

LATENCY = 0.02
PLANS = {
    "both": Plan("hot", LATENCY, 100, 5, 500),
    "without the hot session": Plan("hot", LATENCY, 100, 5, 0),
    "the hot session alone": Plan("hot", LATENCY, 0, 0, 500),
}


def main() -> None:
    """Run it; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hot", description=__doc__)
    parser.add_argument("peers", nargs="*", help=f"of {', '.join(PEERS)}; all without any")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--logs", type=Path, help="a directory for what the workers say")
    given = parser.parse_args()
    if unknown := set(given.peers) - PEERS.keys():
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    report = Report("hot")
    ratios: dict[str, list[tuple[float, float]]] = {}
    with lab(given.logs) as own:
        for _ in range(given.rounds):
            for name in given.peers or PEERS:
                runs = {what: own.measure(PEERS[name], plan) for what, plan in PLANS.items()}
                for what, run in runs.items():
                    report.add(what, run)
                ratios.setdefault(name, []).append(_ratios(runs))
    report.show(
        {
            "others done, s": lambda run: run.verdict.others_seconds,
            "hot done, s": lambda run: run.verdict.hot_seconds,
            "CPU ms": lambda run: run.cpu_ms,
        }
    )
    for name, pairs in ratios.items():
        others, hot = (statistics.median(pair[place] for pair in pairs) for place in (0, 1))
        report.say(f"{name}: others {others:.2f} of their time without it, hot {hot:.2f} of its own alone")


def _ratios(runs: dict[str, Run]) -> tuple[float, float]:
    both, without, alone = (runs[what].verdict for what in PLANS)
    others = (both.others_seconds or 0.0) / without.seconds
    return others, (both.hot_seconds or 0.0) / alone.seconds


if __name__ == "__main__":
    main()
