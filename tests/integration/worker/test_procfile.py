"""The Procfile, run as it is: all processes start, and all of them end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inturn.embedded.ports import free_port
from tests.nodes import ROOT, ProcessContainer, clean_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.process
READY = {
    "web": "Uvicorn running on",
    "worker": "ready.",
    "delivery": "ready.",
    "beat": "beat: Starting",
    "flower": "Visit me at",
}


@pytest.fixture
def honcho(tmp_path: Path, worker_env: dict[str, str]) -> Iterator[ProcessContainer]:
    (tmp_path / "app").mkdir()
    shutil.copy(ROOT / "Procfile", tmp_path / "app")
    (tmp_path / "app" / "deploy").symlink_to(ROOT / "deploy")
    command = [sys.executable, "-m", "honcho", "--no-colour", "start", "--port", str(free_port())]
    env = {**clean_environment(), **worker_env, "FLOWER_PORT": str(free_port()), "CONCURRENCY": "4"}
    honcho = ProcessContainer("honcho", command, directory=tmp_path / "app", env=env, prompt="started (pid=")
    honcho.start()
    yield honcho
    honcho.remove()
    print(honcho.tail())


def test_all_processes_start_and_a_sigterm_ends_them(honcho: ProcessContainer) -> None:
    def ready() -> set[str]:
        lines = honcho.logs().decode().splitlines()
        return {
            name
            for name, prompt in READY.items()
            if any(f" {name}." in line and prompt in line for line in lines)
        }

    wait_until(lambda: ready() == set(READY), timeout=60, what="all of them")

    honcho.kill("SIGTERM")

    wait_until(lambda: honcho.status == "exited")
    stopped = honcho.logs().decode()
    for name in READY:
        assert f"{name}.1 stopped" in stopped
