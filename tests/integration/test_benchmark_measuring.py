"""The benchmark that holds the capacity model against real workers runs, and says what it promises to say."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.nodes import ROOT, clean_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it counts connections as Linux tells them")


@pytest.mark.process
def test_a_load_is_run_simulated_and_modelled() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measuring", "calm", "--seconds", "3", "--warm-up", "0"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=170,
    )

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    (found,) = json.loads(line)["results"]
    assert (found["name"], found["turns"] > 5) == ("calm", True)
    mean, median, longest = found["measured"]
    assert 0 < median <= longest
    assert 0 < mean <= longest
    assert found["simulated"] == [0.0, 0.0, 0.0], "twenty slots are never all taken so soon"
    assert found["redis_connections"] > 0
    assert found["database_connections"] > 0
    assert 10 < found["megabytes"] < 1000
    assert found["idle_commands"] > 64, "each process looks into all buckets"
    assert "formula" in done.stderr
