"""The benchmark of recovery runs, and its counts are right; how soon anything is, is no matter of tests."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.nodes import ROOT, clean_environment


@pytest.mark.process
def test_the_benchmark_of_recovery_strands_sessions_and_sees_each_of_them_go_on() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.recovery", "3", "--rounds", "1"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=170,
    )

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    (result,) = json.loads(line)["results"]
    assert result["size"] == 3
    assert result["stranded"]["calls"] == result["queued"]["calls"] == 3
    assert result["stranded"]["woken"] >= 3
    assert result["stranded"]["scans"] == result["queued"]["scans"] == 0
    assert 0 < result["stranded"]["first"] <= result["stranded"]["last"]
