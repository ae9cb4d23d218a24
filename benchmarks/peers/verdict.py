"""Verdict: whether the turns of a run were taken as they must be, judged from the table alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import psycopg

from benchmarks.peers.work import Planned


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is wrong with a run, and its times in seconds.

    `disordered`: turns that began before an earlier one; `overlapping`: before one had ended; `lost`: whose
    change of the session another has overwritten; `doubled` and `missing` turns. `at_once` is the most turns
    that were in hand at one moment.
    """

    turns: int
    seconds: float
    disordered: int
    overlapping: int
    lost: int
    doubled: int
    missing: int
    at_once: int
    hot_seconds: float | None = None
    others_seconds: float | None = None
    others_median: float | None = None

    @property
    def violations(self) -> int:
        """All that must not be."""
        return self.disordered + self.overlapping + self.lost + self.doubled + self.missing


def judge(
    connection: psycopg.Connection[Any], query: str, turns: Sequence[Planned], began: float | None
) -> Verdict:
    """Judge what `query` gives: session, number, when it began and ended, and the session's version."""
    rows = connection.execute(query.encode()).fetchall()
    if began is None:
        began = min((float(row[2]) for row in rows), default=0.0)
    sessions: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    versions: dict[str, int] = {}
    for session_id, number, start, end, version in rows:
        sessions[session_id].append((int(number), float(start), float(end)))
        versions[session_id] = version
    disordered = overlapping = 0
    for taken in sessions.values():
        taken.sort(key=lambda turn: (turn[1], turn[0]))
        disordered += sum(later[0] < earlier[0] for earlier, later in pairwise(taken))
        latest = 0.0
        for _, start, end in taken:
            overlapping += start < latest
            latest = max(latest, end)
    ends = {name: max(turn[2] for turn in taken) - began for name, taken in sessions.items()}
    others = sorted(end for name, end in ends.items() if name != "hot")
    found = {(name, turn[0]) for name, taken in sessions.items() for turn in taken}
    return Verdict(
        turns=len(rows),
        seconds=round(max(ends.values(), default=0.0), 3),
        disordered=disordered,
        overlapping=overlapping,
        lost=sum(len(taken) - versions[name] for name, taken in sessions.items()),
        doubled=len(rows) - len(found),
        missing=len({(turn.session_id, turn.number) for turn in turns} - found),
        at_once=_at_once(rows),
        hot_seconds=round(ends["hot"], 3) if "hot" in ends else None,
        others_seconds=round(others[-1], 3) if others and "hot" in ends else None,
        others_median=round(others[len(others) // 2], 3) if others and "hot" in ends else None,
    )


def _at_once(rows: Sequence[Sequence[Any]]) -> int:
    """How many lie over each other where most do."""
    steps = sorted([(row[2], 1) for row in rows] + [(row[3], -1) for row in rows])
    return max(accumulate(step for _, step in steps), default=0)
