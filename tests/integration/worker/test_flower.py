"""Flower with the settings of deploy/: who has no password sees nothing; who has it, not what was said."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from inturn.client import Client
from inturn.embedded.ports import free_port
from tests.channels import Receiver
from tests.integration.worker.conftest import StartWorker
from tests.nodes import ROOT, ProcessContainer, clean_environment
from tests.planted import ENDS, MARK, Turns, assert_planted, planted, planted_env
from tests.waiting import wait_until

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
ANN = httpx.BasicAuth("ann", "secret-enough")

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


def test_a_file_may_hold_the_password(start_flower: StartFlower, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "FLOWER_BASIC_AUTH").write_text("ann:secret-enough\n")

    _, client = start_flower(address="", INTURN_SECRETS_DIR=str(folder))

    assert_closed(client, NOBODY)
    assert client.get("/workers", auth=ANN).status_code == 200


def test_read_only_it_changes_nothing(start_flower: StartFlower) -> None:
    _, client = start_flower(FLOWER_BASIC_AUTH="ann:secret-enough", FLOWER_READ_ONLY="true")

    for path in CONTROL:
        assert client.post(path, auth=ANN, json={}).status_code == 403, path


def states(client: httpx.Client, turns: Turns) -> dict[str, str]:
    """The states of turns by their names; of those that Flower has not heard of yet, none."""
    tasks = client.get("/api/tasks?limit=1000").json()
    return {name: tasks[turn_id]["state"] for name, turn_id in turns.items() if turn_id in tasks}


def test_what_it_has_seen_outlasts_a_restart(
    start_flower: StartFlower, start_worker: StartWorker, client: Client, tmp_path: Path
) -> None:
    env = {"FLOWER_BASIC_AUTH": "ann:secret-enough", "FLOWER_DB": str(tmp_path / "flower")}
    start_worker()
    first, seen = start_flower(**env)
    seen.auth = ANN
    wait_until(lambda: "worker" in repr(seen.get("/api/workers?refresh=1").json()), timeout=60)
    handle = client.respond("s", "hello")
    handle.get()
    wait_until(lambda: states(seen, {"it": handle.turn_id}) == {"it": "SUCCESS"}, timeout=60)

    first.kill("SIGTERM")
    wait_until(lambda: first.status == "exited", timeout=60)
    _, again = start_flower(**env)

    again.auth = ANN
    assert states(again, {"it": handle.turn_id}) == {"it": "SUCCESS"}


def everything(client: httpx.Client, turns: Turns) -> dict[str, str]:
    """All that Flower answers, by what was asked."""
    [worker] = client.get("/api/workers?refresh=1").json()
    ids = {*turns.values(), *client.get("/api/tasks?limit=1000").json()}
    paths = ["/api/workers?refresh=1", "/api/tasks?limit=1000", "/api/task/types", "/api/queues/length"]
    paths += [f"/api/task/{what}/{task}" for what in ("info", "result") for task in ids]
    paths += [f"/api/tasks?search={MARK}", "/metrics", "/workers", "/tasks", "/broker", f"/worker/{worker}"]
    paths += [f"/task/{task}" for task in ids]
    table = {"draw": "1", "start": "0", "length": "1000", "columns[0][data]": "name"}
    table |= {"search[value]": "", "order[0][column]": "0", "order[0][dir]": "asc"}
    answers = {path: client.get(path) for path in paths}
    answers["/tasks/datatable"] = client.post("/tasks/datatable", data=table)
    wrong = {path: answer.status_code for path, answer in answers.items() if answer.status_code != 200}
    # Those of results, whose backend Flower has not; and of tasks that it has not heard of.
    assert {path for path in wrong if "/api/task/result/" not in path and wrong[path] != 404} == set()
    return {path: answer.text.replace(f"search={MARK}", "") for path, answer in answers.items()}


def test_the_end_of_every_turn_is_shown_and_nothing_that_was_said(
    start_flower: StartFlower,
    start_worker: StartWorker,
    client: Client,
    broker_url: str,
    store_url: str,
    journal: Path,
    fast: dict[str, str],
    worker_env: dict[str, str],
    tmp_path: Path,
) -> None:
    with Receiver(lambda sent: 400 if "refuse" in sent.text else 200) as receiver:
        # Any password opens a server that has none: it must be shown as little.
        with_password = broker_url.replace("//", f"//default:{MARK}@")
        start_worker(**planted_env({**fast, "REDIS_URL": with_password}, receiver.url))
        flower, seen = start_flower(
            FLOWER_BASIC_AUTH="ann:secret-enough", REDIS_URL=with_password, FLOWER_DB=str(tmp_path / "flower")
        )
        seen.auth = ANN
        wait_until(lambda: "worker" in repr(seen.get("/api/workers?refresh=1").json()), timeout=60)
        with planted(client, broker_url, journal) as turns:
            wait_until(lambda: "later" in states(seen, turns), timeout=60, what="a task that is held")
            while_they_run = everything(seen, turns)
        ends = {name: turns[name] for name in ENDS}
        try:
            wait_until(lambda: states(seen, ends) == ENDS, timeout=90, what="their ends")
        finally:
            print(states(seen, ends))
        wait_until(lambda: bool(receiver.taken) and len(receiver.requests) > len(receiver.taken), timeout=60)
        at_the_end = everything(seen, turns)

    assert_planted(store_url)
    assert [path for path, text in while_they_run.items() if MARK in text] == []
    assert [path for path, text in at_the_end.items() if MARK in text] == []
    flower.kill("SIGTERM")
    wait_until(lambda: flower.status == "exited", timeout=60)
    kept = [path.name for path in tmp_path.glob("flower*") if path.suffix != ".log"]
    assert kept
    for path in [*tmp_path.glob("*.log"), *(tmp_path / name for name in kept)]:
        assert MARK.encode() not in path.read_bytes(), path
