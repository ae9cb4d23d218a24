"""What the benchmarks against the peers call a violation: a fast run with one is no success."""

from __future__ import annotations

import psycopg
import pytest

from benchmarks.peers.verdict import judge
from benchmarks.peers.work import Plan

PLAN = Plan("bursts", 0.0, 2, 2)


def run_of(*turns: tuple[str, int, float, float, int]) -> str:
    """The query that gives these turns: session, number, when it began and ended, the session's version."""
    return "SELECT * FROM (VALUES " + ", ".join(map(str, turns)) + ") AS turn"


GOOD = [
    ("s00000", 0, 1.0, 2.0, 2),
    ("s00000", 1, 2.0, 3.0, 2),
    ("s00001", 0, 1.5, 2.5, 2),
    ("s00001", 1, 2.5, 4.0, 2),
]


@pytest.mark.parametrize(
    ("violation", "turns"),
    [
        ("disordered", [("s00000", 0, 2.0, 3.0, 2), ("s00000", 1, 1.0, 2.0, 2), *GOOD[2:]]),
        ("overlapping", [("s00000", 0, 1.0, 2.1, 2), *GOOD[1:]]),
        ("lost", [("s00000", 0, 1.0, 2.0, 1), ("s00000", 1, 2.0, 3.0, 1), *GOOD[2:]]),
        ("doubled", [*GOOD, ("s00001", 1, 4.0, 5.0, 3)]),
        ("missing", GOOD[:3]),
    ],
)
def test_each_violation_is_counted(
    database_url: str, violation: str, turns: list[tuple[str, int, float, float, int]]
) -> None:
    with psycopg.connect(database_url) as connection:
        verdict = judge(connection, run_of(*turns), PLAN.all(), 0.5)

    assert getattr(verdict, violation) == 1


def test_turns_one_after_another_are_no_violation(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        verdict = judge(connection, run_of(*GOOD), PLAN.all(), 0.5)

    assert verdict.violations == 0
    assert (verdict.turns, verdict.seconds, verdict.at_once) == (4, 3.5, 2)
