"""The benchmarks of what a turn costs: taken in, in a full store, beside the bare driver."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.nodes import ROOT, clean_environment

pytestmark = pytest.mark.process


def run(*words: str) -> Any:
    """Run a benchmark; the line it has printed."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


def test_all_that_is_enqueued_is_there_once_from_any_number_of_threads() -> None:
    results = run("benchmarks.enqueue", "--calls", "320", "--rounds", "1")["results"]

    assert [result["threads"] for result in results] == [1] * 4 + [8] * 4 + [32] * 4
    assert all(result["wrong"] == 0 and result["p99"] >= result["p50"] > 0 for result in results)


def test_growth_is_measured_against_the_smallest_store() -> None:
    results = run("benchmarks.growth", "1000", "1200", "--rounds", "4", "--messages", "2")["results"]

    assert [result["sessions"] for result in results] == [1000, 1200]
    assert (results[0]["turn_ratio"], results[0]["batch_ratio"]) == (1, 1)
    assert all(result["turn"] > 0 and result["batch"] > 0 for result in results)


def test_a_turn_is_measured_beside_the_bare_driver_on_each_store() -> None:
    results = run("benchmarks.peers_history", "--alone", "--rounds", "2")["results"]

    for name in ("floor", "inturn"):
        found = [(each["store"], each["size"]) for each in results if each["layer"] == name]
        assert found == [
            (store, size) for store in ("postgresql", "sqlite", "redis") for size in (10, 100, 1000)
        ]
    assert all(each["to_floor"] == 1 for each in results if each["layer"] == "floor")
    assert all(each["bytes"] > 0 for each in results if each["store"] != "sqlite" or sys.platform == "linux")
