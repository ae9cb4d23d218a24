"""`make up`: the processes of the Procfile, driven as a user drives them, and stopped with a turn in hand."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from inturn.embedded.ports import free_port
from tests.nodes import ROOT, ProcessContainer, clean_environment
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]


@pytest.fixture
def directory() -> Iterator[Path]:
    # PostgreSQL does not run as root, and pytest's own directories are closed to others.
    with tempfile.TemporaryDirectory(prefix="inturn-up-") as name:
        Path(name).chmod(0o711)
        # Lines of the Procfile name files of the repository, and write into the directory they are in.
        (Path(name) / "deploy").symlink_to(ROOT / "deploy")
        yield Path(name)


@pytest.fixture
def ports() -> list[int]:
    """Of web, of Flower, and the first one of metrics."""
    return [free_port(), free_port(), free_port()]


@pytest.fixture
def up(directory: Path, ports: list[int]) -> Iterator[ProcessContainer]:
    chosen = [f"--port={ports[0]}", f"--flower-port={ports[1]}", f"--metrics={ports[2]}", "--data-dir=data"]
    up = ProcessContainer(
        "up",
        [sys.executable, str(ROOT / "scripts" / "up.py"), *chosen],
        directory=directory,
        env={
            **clean_environment(),
            "CONCURRENCY": "4",
            "INTURN_CLEANUP_SECONDS": "2",
            "INTURN_OFFLINE_LATENCY": "1",
        },
        prompt="Ctrl-C stops everything",
    )
    try:
        up.start()
        yield up
    finally:
        print(up.tail())
        if up.status == "running":
            up.kill("SIGTERM")
            wait_until(lambda: up.status == "exited", timeout=120)


def test_a_message_is_answered_and_flower_beat_and_metrics_are_there(
    up: ProcessContainer, ports: list[int], directory: Path
) -> None:
    urls = [f"http://127.0.0.1:{port}" for port in ports]

    def answers(url: str) -> bool:
        try:
            return httpx.get(url, timeout=10).status_code < 500
        except httpx.HTTPError:
            return False

    for url in (f"{urls[0]}/readyz", f"{urls[1]}/healthcheck", f"{urls[2]}/metrics"):
        wait_until(lambda: answers(url), timeout=120, what=url)  # noqa: B023
    with httpx.Client(base_url=urls[0], timeout=90) as web:
        turn = {"message": "A table for four, please"}
        said = web.post("/sessions/s/turns", json=turn, headers={"Prefer": "wait=60"}).json()
        assert said["reply"]["message"]
        assert "inturn_turns_waiting 0" in web.get("/metrics").text
    assert "inturn_turn_seconds" in httpx.get(f"{urls[2]}/metrics", timeout=30).text

    found = re.search(r"as (\S+) with the password (\S+)", up.logs().decode())
    assert found
    assert httpx.get(f"{urls[1]}/api/tasks", timeout=30).status_code == 401
    with httpx.Client(base_url=urls[1], auth=(found[1], found[2]), timeout=60) as flower:
        wait_until(lambda: "cleanup_sessions" in flower.get("/api/tasks").text, timeout=90, what="beat")

    with httpx.Client(base_url=urls[0], timeout=90) as web:
        last = web.post("/sessions/s/turns", json={"message": "On Friday"}).json()["turn_id"]
        wait_until(lambda: web.get(f"/turns/{last}").json()["status"] != "waiting", timeout=60)
    up.kill("SIGINT")
    wait_until(lambda: up.status == "exited", timeout=120)
    text = up.logs().decode()
    assert "up | stopped" in text
    assert re.search(rf"turn ended .*turn_id={re.escape(last)}", text), "a turn in hand is finished"
    assert "Traceback" not in text
    assert (directory / "data" / "postgres").is_dir()
    assert list((directory / "data").glob("flower*")), "what Flower has seen is kept"
