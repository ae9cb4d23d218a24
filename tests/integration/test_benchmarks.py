"""The benchmarks run, and say what they promise to say; how fast anything is, is no matter of tests."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.history import SIZES
from tests.nodes import ROOT, clean_environment


@pytest.mark.process
def test_the_benchmark_of_histories_measures_every_size_and_prints_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.history", "memory", "sqlite", "redis", "--rounds", "2"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert report["machine"]["python"]
    found = [(result["store"], result["window"], result["base"]) for result in report["results"]]
    assert found == [
        (store, window, base)
        for store in ("memory", "sqlite", "redis")
        for window, base in ((10, 10), (50, 100))
    ]
    for result in report["results"]:
        assert tuple(cost["size"] for cost in result["costs"]) == SIZES
        first, last = result["costs"][-2:]
        if result["store"] == "memory":
            assert last["bytes"] is None
        elif sys.platform == "linux":
            assert 0 < last["bytes"] < 2 * first["bytes"], "a turn writes its own rows only"
    assert "ratio" in done.stderr


@pytest.mark.process
def test_of_200_webhooks_in_flight_each_is_answered_and_one_turn() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.webhooks", "--events", "400"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=170,
    )

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    (result,) = json.loads(line)["results"]
    assert (result["in_flight"], result["accepted"], result["turns"], result["doubled"]) == (200, 400, 400, 0)
    assert result["longest"] >= result["p99"] >= result["p50"] > 0


@pytest.mark.process
def test_the_benchmark_of_encryption_compares_turns_of_one_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.encryption", "memory", "sqlite", "--rounds", "4"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    results = json.loads(line)["results"]
    assert [result["store"] for result in results] == ["memory", "sqlite"]
    assert all(result["plain"] > 0 and result["ratio"] > 0 for result in results)


def test_a_store_that_does_not_exist_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.history", "reddis"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 2
    assert "reddis" in done.stderr


@pytest.mark.process
def test_the_benchmark_of_retention_deletes_what_is_old_and_measures_turns_with_and_without() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.retention",
            "--sessions",
            "300",
            "--messages",
            "2",
            "--seconds",
            "3",
        ],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=170,
    )

    # 1: small tables are read as a whole, and rightly so.
    assert done.returncode in (0, 1), done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)["retention"]
    assert result["deleted"] == 300
    assert set(result["scans"]) == {"agent_sessions", "agent_messages", "agent_turns"}
    assert len(result["without"]) == len(result["during"]) > 0
