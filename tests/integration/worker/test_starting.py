"""Workers that start before what they need, or with the wrong settings."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inturn.client import Client
from tests.integration.worker.conftest import StartWorker
from tests.nodes import clean_environment
from tests.servers import own_postgres
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_may_start_before_its_store_and_its_turns_wait(
    pool: str, start_worker: StartWorker, client: Client, tmp_path: Path, fast: dict[str, str]
) -> None:
    with own_postgres(tmp_path) as server:
        server.stop()
        options = {**fast, "DATABASE_URL": server.url, "INTURN_MAX_ATTEMPTS": "1"}
        worker = start_worker(pool=pool, concurrency=2, **options)
        handle = client.respond("s", "hello")
        wait_until(lambda: "turn will be tried again" in worker.logs(), timeout=40)

        server.start()

        assert handle.get(timeout=60).message == "you said: hello"
        worker.kill("SIGKILL")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"INTURN_AGENT": "nowhere:agent"}, "nowhere"),
        ({"INTURN_LEASE_SECONDS": "soon"}, "INTURN_LEASE_SECONDS"),
        ({"DATABASE_URL": "postgre://localhost/x"}, "did you mean postgres"),
    ],
)
def test_a_worker_with_wrong_settings_does_not_start_and_says_why(
    env: dict[str, str], words: str, worker_env: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker", "worker", "--pool", "threads"],
        env={**clean_environment(), **worker_env, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_beat_that_is_stopped_while_it_starts_ends_in_order(
    number: signal.Signals, worker_env: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["-s", str(tmp_path / "schedule"), "--scheduler", "tests.slow_beat:Slow"]
    beat = subprocess.Popen(
        [sys.executable, "-m", "celery", "--quiet", "-A", "worker", "beat", *arguments],
        env={**clean_environment(), **worker_env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert beat.stdout is not None
    said = next(line for line in beat.stdout if line == "opening\n")
    beat.send_signal(number)

    said += beat.communicate(timeout=60)[0]

    assert beat.returncode == 0, said
    assert said.count("opening") == 1, "the handler saves the schedule, and must not open it once more"
    assert "Traceback" not in said
