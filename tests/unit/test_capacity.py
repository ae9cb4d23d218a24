"""The capacity model says what is known, where something is known, and what the simulation says."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks.capacity import Load, erlang_c, main, plan, size
from benchmarks.simulation import Arrival, arrivals, quantile, simulate
from tests.nodes import ROOT

EACH = 0.03


def test_the_share_that_waits_is_what_the_tables_say() -> None:
    assert erlang_c(1, 0.6) == pytest.approx(0.6)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(10, 8.0) == pytest.approx(0.4092, abs=1e-4)
    assert erlang_c(4.5, 3.0) == pytest.approx((erlang_c(4, 3.0) * erlang_c(5, 3.0)) ** 0.5, rel=0.02)


def test_turns_of_a_session_go_in_order_and_hold_one_slot() -> None:
    turns = [Arrival(0.0, 1, 4.0), Arrival(1.0, 1, 4.0), Arrival(2.0, 2, 4.0), Arrival(3.0, 3, 1.0)]
    found = simulate(turns, slots=2)
    assert sorted(found.waits) == [0.0, 0.0, 3.0, 3.0]
    assert sorted(found.queued) == [0.0, 0.0, 3.0]


def test_a_session_lets_others_go_first_after_eight_turns() -> None:
    hot = [Arrival(0.0, 1, 1.0) for _ in range(10)]
    found = simulate([*hot, Arrival(0.5, 2, 1.0)], slots=1)
    assert found.queued == [0.0, 7.5]


def test_turns_come_as_often_and_take_as_long_as_they_should() -> None:
    made = arrivals(per_second=20, seconds=2, variation=0.5, burst=3, sessions=50, until=4000, seed=1)
    assert len(made) / 4000 == pytest.approx(20, rel=0.05)
    assert sum(turn.seconds for turn in made) / len(made) == pytest.approx(2, rel=0.05)
    assert len(made) / len({turn.at for turn in made}) == pytest.approx(3, rel=0.05)
    assert {turn.session for turn in made} == set(range(50))


@pytest.mark.parametrize(
    ("load", "slots"),
    [
        pytest.param(Load(11, 1.5, 0.5), 20, id="busy"),
        pytest.param(Load(17, 2.0, 0.5), 40, id="more-slots"),
        pytest.param(Load(8, 2.0, 1.5), 20, id="long-and-short"),
        pytest.param(Load(9, 1.5, 0.5, burst=4), 20, id="bursts"),
        pytest.param(Load(8, 1.5, 0.5, gap_seconds=4), 40, id="hasty-users"),
        pytest.param(Load(8, 1.5, 0.8, gap_seconds=4), 14, id="hasty-users-and-few-slots"),
        pytest.param(Load(50, 8.0, 0.8), 480, id="big"),
    ],
)
def test_the_formula_says_what_the_simulation_says(load: Load, slots: int) -> None:
    given = arrivals(
        per_second=load.turns_per_second,
        seconds=load.model_seconds,
        variation=load.variation,
        burst=load.burst,
        sessions=load.sessions,
        until=15_000 / load.turns_per_second,
        seed=8,
    )
    found = simulate(given, slots=slots, overhead=EACH, warm_up=100)
    said = plan(load, workers=1, slots=slots, overhead=EACH)

    assert said.utilisation == pytest.approx(found.utilisation, rel=0.05)
    assert said.wait_mean == pytest.approx(found.mean, rel=0.35, abs=0.02)
    assert said.wait_p99 == pytest.approx(found.quantile(0.99), rel=0.35, abs=0.1)
    assert said.behind == pytest.approx(1 - len(found.queued) / len(found.waits), rel=0.2, abs=0.01)


def test_workers_are_as_many_as_are_wanted_and_no_more() -> None:
    load = Load(50, 8.0)
    made = size(load, slots=100, wait_p99=1.0)
    fewer = plan(load, workers=made.workers - 1, slots=100)
    assert fewer.utilisation >= 1 or fewer.wait_slot > made.wait_slot
    assert math.isinf(plan(load, workers=1, slots=100).wait_mean)
    heavy = size(Load(50, 8.0, cpu_seconds=0.3), slots=100, wait_p99=1.0)
    assert heavy.workers > made.workers
    assert heavy.cpu < 1


def test_the_command_prints_what_is_asked_and_fails_where_it_is_too_much(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--turns-per-second", "50", "--model-seconds", "8"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    for word in ("workers", "slots", "memory", "Redis", "PostgreSQL", "connections"):
        assert word in said
    assert main([*asked, "--workers", "1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["utilisation"] > 1


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "explanation" / "scale.md").read_text()
    asked, _, shown = page.partition("$ python -m benchmarks.capacity ")[2].partition("\n")
    main(asked.split())
    assert shown.startswith(capsys.readouterr().out)


def test_a_quantile_is_a_value_that_was_there() -> None:
    assert quantile([], 0.5) == 0.0
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0], 1.0) == 3.0
