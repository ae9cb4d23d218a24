"""The fault run, in short: every fault once, no violation; and a broken inturn is found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from inturn.session.state import Message
from inturn.testing.history import Accepted
from tests.faults.control import POINTS, Control
from tests.faults.outcome import Options, Outcome
from tests.faults.run import Run, scratch
from tests.faults.schedule import PER_MINUTE, make_schedule
from tests.faults.verdict import Stranded, count_violations, judge_deliveries, judge_history, measure_recovery

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def run(**options: Any) -> Outcome:
    with scratch() as directory:
        return Run(Options(short=True, **options), directory, lambda line: print(line, flush=True)).run()


@pytest.mark.process
@pytest.mark.long
@pytest.mark.timeout(400)
def test_nothing_is_lost_doubled_or_out_of_turn_whatever_fails() -> None:
    outcome = run(turns=600, sessions=30, minutes=0.5, hits=1, outages=1, outage_seconds=3.0, concurrency=8)

    assert outcome.ok, (outcome.violations, outcome.examples)
    assert outcome.accepted >= 600
    assert outcome.committed == outcome.accepted
    assert {point for point, kills in outcome.points.items() if not kills} == set(), "a point was never hit"
    expected = {*PER_MINUTE, "valkey outage", "rolling restart", "clock steps"}
    assert {name for name in expected if not outcome.faults[name]} == set(), "a fault never happened"
    assert outcome.deliveries["sent once"] > 0
    assert outcome.counts["turns of release 1"] > 0
    assert outcome.counts["turns of release 2"] > 0


@pytest.mark.process
@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_broken_inturn_is_found() -> None:
    outcome = run(turns=100, sessions=10, minutes=0.1, hits=0, outages=0, faults=False, plant="forget")

    assert outcome.violations["lost"] > 0
    assert not outcome.ok


def test_the_same_seed_gives_the_same_schedule() -> None:
    one, same, other = (make_schedule(400, hits=20, outages=2, seed=seed) for seed in (1, 1, 2))

    assert one == same != other
    assert all(sum(fault.name == f"die {point}" for fault in one) == 20 for point in POINTS)
    assert one == sorted(one)


def test_a_token_kills_one_process_only(tmp_path: Path) -> None:
    control, other = Control(tmp_path), Control(tmp_path)
    control.arm("model")

    assert control.armed() == ["model"]
    assert [control.claim("model"), other.claim("model"), control.claim("ack")] == [True, False, False]


def test_what_a_stale_owner_wrote_behind_a_newer_one_is_found() -> None:
    journal = [commit("s:t1", 10, "m1", "m2"), commit("s:t2", 20, "m3", "m4"), commit("s:t3", 15, "m5", "m6")]
    messages = [row(number, f"s:t{(number + 1) // 2}") for number in range(1, 7)]

    verdict, stale = judge_history(told(3), messages, [], journal)

    assert verdict.ok
    assert stale == ["s:t3"]


def test_a_stepped_clock_makes_no_overlap() -> None:
    stepped = BEGAN + timedelta(minutes=5)
    messages = [
        row(1, "s:t1", stepped),
        row(2, "s:t1", stepped + timedelta(seconds=1)),
        row(3, "s:t2", BEGAN),
    ]
    messages.append(row(4, "s:t2", BEGAN + timedelta(seconds=9)))
    true = {
        "m1": (BEGAN - timedelta(seconds=5)).isoformat(),
        "m2": (BEGAN - timedelta(seconds=4)).isoformat(),
    }

    seen, _ = judge_history(told(2), messages, [], [])
    corrected, _ = judge_history(told(2), messages, [], [commit("s:t1", 1, "m1", "m2", true=true)])

    assert not corrected.overlapping
    assert corrected.ok
    assert not seen.lost


def test_recovery_is_counted_until_somebody_else_begins() -> None:
    journal = [
        ["begin", 1, 10.0, "a", 1],
        ["begin", 1, 10.1, "b", 1],
        ["end", 1, 11.0, "b"],
        ["begin", 2, 21.0, "a", 2],
        ["begin", 2, 22.0, "b", 2],
    ]

    found = measure_recovery(journal, [Stranded(1, 12.0, "killed")], [])

    assert found["killed"].times == [9.0]


def test_replies_that_arrive_twice_or_never_or_too_early_are_found() -> None:
    replies = [("s", f"s:t{number}", f"re {number}") for number in range(1, 7)]
    taken = [("s", f"re {number}") for number in (1, 2, 2, 5, 4)]

    found = judge_deliveries(replies, taken, {"s:t6": "unknown"})
    counts, _ = count_violations(judge_history([], [], [], [])[0], [], [], found)

    assert counts["delivered twice"] == 1
    assert counts["not delivered"] == 1
    assert counts["delivered out of order"] == 1
    assert (found.once, found.unknown) == (3, 1)


def commit(turn_id: str, fence: int, *ids: str, true: dict[str, str] | None = None) -> Sequence[Any]:
    return ["commit", 1, 0.0, turn_id, fence, list(ids), true or {}]


def told(turns: int) -> list[Accepted]:
    return [Accepted("s", f"s:t{number}", number, BEGAN) for number in range(1, turns + 1)]


def row(sequence: int, turn_id: str, at: datetime | None = None) -> Message:
    return Message(
        id=f"m{sequence}",
        session_id="s",
        sequence=sequence,
        turn_id=turn_id,
        role="user" if sequence % 2 else "assistant",
        content=f"line {sequence}",
        created_at=at or BEGAN + timedelta(seconds=sequence),
    )
