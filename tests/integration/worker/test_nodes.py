"""The worker nodes: what all tests of worker processes rely on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery
from celery.exceptions import TimeoutError as NoResultYet
from pytest_celery import CeleryTestBroker, CeleryTestSetup, CeleryTestWorker

from tests.integration.worker.conftest import StartWorker
from tests.nodes import ROOT
from tests.waiting import wait_until

pytestmark = pytest.mark.process
APP = "tests.integration.worker.trivial"


@pytest.fixture
def worker(start_worker: StartWorker) -> CeleryTestWorker:
    return start_worker(app=APP, concurrency=2)


def began(worker: CeleryTestWorker) -> int:
    return int(worker.logs().count("began"))


@pytest.mark.parametrize("pool", ["threads", "gevent", "prefork"])
def test_a_worker_of_any_pool_does_what_is_sent(
    start_worker: StartWorker, celery_setup_app: Celery, pool: str
) -> None:
    worker = start_worker(app=APP, pool=pool, concurrency=2)

    pid = celery_setup_app.send_task("where").get(timeout=20)

    assert (pid == worker.container.pid) == (pool != "prefork")
    stats = celery_setup_app.control.inspect([worker.hostname()], timeout=5).stats() or {}
    assert stats[worker.hostname()]["pool"]["max-concurrency"] == 2


def test_several_workers_live_side_by_side(
    start_worker: StartWorker, worker: CeleryTestWorker, celery_setup_app: Celery
) -> None:
    other = start_worker(app=APP)

    answers = celery_setup_app.control.ping(timeout=10, limit=2) or []

    names = {name for answer in answers for name in answer}
    assert names == {worker.hostname(), other.hostname()}


def test_a_killed_worker_is_gone_and_its_task_is_done_after_a_restart(
    worker: CeleryTestWorker, celery_setup_app: Celery
) -> None:
    result = celery_setup_app.send_task("where", [1])
    wait_until(lambda: began(worker))

    worker.kill()

    assert worker.container.status == "exited"
    with pytest.raises(NoResultYet):
        result.get(timeout=1.5)
    worker.restart()
    assert result.get(timeout=30) == worker.container.pid
    assert began(worker) == 2


def test_a_paused_worker_does_nothing_until_it_goes_on(
    worker: CeleryTestWorker, celery_setup_app: Celery
) -> None:
    worker.kill("SIGSTOP")
    result = celery_setup_app.send_task("where")
    with pytest.raises(NoResultYet):
        result.get(timeout=1)
    assert worker.container.status == "running"

    worker.kill("SIGCONT")

    assert result.get(timeout=20) == worker.container.pid


def test_sigterm_is_a_warm_shutdown(worker: CeleryTestWorker, celery_setup_app: Celery) -> None:
    result = celery_setup_app.send_task("where", [1])
    wait_until(lambda: began(worker))

    worker.kill("SIGTERM")

    wait_until(lambda: worker.container.status == "exited")
    assert result.get(timeout=5) > 0


def test_a_broker_that_was_killed_comes_back_with_what_it_held(
    celery_broker: CeleryTestBroker, start_worker: StartWorker, celery_setup_app: Celery
) -> None:
    result = celery_setup_app.send_task("where")
    # `everysec` may lose the last second; the test is not about that one.
    celery_broker.container.exec_run([sys.executable, "-c", SYNC, celery_broker.container.url])

    celery_broker.kill()
    celery_broker.restart()
    start_worker(app=APP)

    assert result.get(timeout=20) > 0


SYNC = "import redis, sys; redis.Redis.from_url(sys.argv[1]).waitaof(1, 0, 5000)"


def test_celery_setup_has_one_worker_on_one_redis(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(control=True)
    assert len(celery_setup) == 3
    assert celery_setup.broker.container.url == celery_setup.backend.container.url


TEST_THAT_IS_KILLED = """
import time
def test_waits(start_worker):
    worker = start_worker(app="tests.integration.worker.trivial", pool="prefork", concurrency=2)
    print("worker", worker.container.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_nothing_is_left_when_pytest_itself_is_killed(tmp_path: Path) -> None:
    """No worker, none of its children and no Valkey."""
    conftest = "from tests.integration.worker.conftest import *\n"
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_waits.py").write_text(TEST_THAT_IS_KILLED)
    command = [sys.executable, "-m", "pytest", "-s", "-c", str(ROOT / "pyproject.toml"), str(tmp_path)]
    with subprocess.Popen(
        [*command, "--rootdir", str(tmp_path), "--basetemp", str(tmp_path / "base")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout
        line = next(line for line in run.stdout if "worker " in line)
        assert len(processes_below(tmp_path)) >= 4, line

        run.kill()

    wait_until(lambda: not processes_below(tmp_path), what="the end of all processes")


def processes_below(directory: Path) -> list[int]:
    """All processes that work in a folder below `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if Path(os.readlink(entry / "cwd")).is_relative_to(directory):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
