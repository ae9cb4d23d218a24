"""Flower with the settings of deploy/: who has no password sees nothing, who has it sees all."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from inturn.embedded.ports import free_port
from tests.nodes import ROOT, ProcessContainer, clean_environment

pytestmark = pytest.mark.process

PAGES = ["/", "/workers", "/tasks", "/broker", "/worker/some", "/task/some"]
API = [
    "/api/workers",
    "/api/tasks",
    "/api/task/types",
    "/api/queues/length",
    "/api/task/info/some",
    "/api/task/result/some",
]
CONTROL = [
    "/api/task/send-task/cleanup_sessions",
    "/api/task/async-apply/respond",
    "/api/task/apply/respond",
    "/api/task/revoke/some",
    "/api/task/abort/some",
    "/api/worker/shutdown/some",
    "/api/worker/pool/shrink/some",
]

NOBODY = httpx.Auth()

StartFlower = Callable[..., tuple[ProcessContainer, httpx.Client]]


@contextmanager
def flower(
    directory: Path, env: dict[str, str], address: str
) -> Iterator[tuple[ProcessContainer, httpx.Client]]:
    port = free_port()
    conf = f"--conf={ROOT / 'deploy' / 'flowerconfig.py'}"
    command = [sys.executable, "-m", "celery", "-A", "worker", "flower", conf, f"--port={port}"]
    if address:
        command.append(f"--address={address}")
    process = ProcessContainer(
        "flower",
        command,
        directory=directory,
        env={**clean_environment(), "PYTHONPATH": str(ROOT), **env},
        prompt="Visit me at",
    )
    try:
        process.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield process, client
    finally:
        process.remove()
        print(process.tail())


@pytest.fixture
def start_flower(tmp_path: Path, worker_env: dict[str, str]) -> Iterator[StartFlower]:
    with ExitStack() as stack:

        def start(address: str = "127.0.0.1", **env: str) -> tuple[ProcessContainer, httpx.Client]:
            return stack.enter_context(flower(tmp_path, {**worker_env, **env}, address))

        yield start


def assert_closed(client: httpx.Client, auth: httpx.Auth) -> None:
    for path in [*PAGES, *API, "/metrics"]:
        assert client.get(path, auth=auth).status_code == 401, path
    for path in CONTROL:
        assert client.post(path, auth=auth, json={}).status_code == 401, path


def test_with_a_password_all_is_closed_to_those_without_it(start_flower: StartFlower) -> None:
    _, client = start_flower(FLOWER_BASIC_AUTH="ann:secret-enough")

    assert_closed(client, NOBODY)
    assert_closed(client, httpx.BasicAuth("ann", "wrong"))
    assert_closed(client, httpx.BasicAuth("secret-enough", "ann"))
    assert client.get("/healthcheck").text == "OK"
    mine = ("ann", "secret-enough")
    for path in ["/workers", "/tasks", "/api/workers", "/api/tasks", "/metrics"]:
        assert client.get(path, auth=mine).status_code == 200, path
    assert "flower_" in client.get("/metrics", auth=mine).text


def test_without_one_the_api_and_the_metrics_are_closed(start_flower: StartFlower) -> None:
    _, client = start_flower()

    for path in [*API, "/metrics"]:
        assert client.get(path).status_code == 401, path
    for path in CONTROL:
        assert client.post(path, json={}).status_code == 401, path


def test_where_others_can_reach_it_a_password_is_made_up(start_flower: StartFlower) -> None:
    # Every address of this machine; nothing but loopback is asked here.
    process, client = start_flower(address="")

    assert_closed(client, NOBODY)
    said = re.search(r"for now it is (inturn):(\S+)", process.logs().decode())
    assert said is not None
    assert client.get("/workers", auth=(said[1], said[2])).status_code == 200
