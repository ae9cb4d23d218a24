"""Turns over HTTP: the web application as its own process, a worker, and a real Redis between them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pytest_celery import RedisTestBroker

from inturn.embedded.ports import free_port
from inturn.embedded.tether import tethered
from tests.integration.worker.conftest import StartWorker
from tests.nodes import clean_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.process


@pytest.fixture
def web(worker_env: dict[str, str], tmp_path: Path) -> Iterator[httpx.Client]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "producer.web:app", "--port", str(port)]
    with (tmp_path / "web.log").open("wb") as log:
        process = subprocess.Popen(
            tethered(command), env={**clean_environment(), **worker_env}, stdout=log, stderr=log
        )
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=40) as client:

            def answers() -> bool:
                assert process.poll() is None, (tmp_path / "web.log").read_text()
                try:
                    return client.get("/healthz").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(answers)
            yield client
        process.terminate()
        process.wait(10)


def test_a_turn_is_accepted_and_its_reply_can_be_asked_for(
    web: httpx.Client, start_worker: StartWorker
) -> None:
    accepted = web.post("/sessions/s/turns", json={"message": "hello"})
    assert accepted.status_code == 202
    turn = accepted.json()
    assert (turn["status"], turn["ahead"]) == ("waiting", 0)

    start_worker()
    done = wait_until(
        lambda: (now := web.get(f"/turns/{turn['turn_id']}").json())["status"] == "done" and now
    )

    assert done["reply"]["message"] == "you said: hello"


def test_a_request_may_wait_for_its_reply(web: httpx.Client, start_worker: StartWorker) -> None:
    start_worker()

    answer = web.post("/sessions/s/turns", json={"message": "hello"}, headers={"Prefer": "wait=20"})

    assert answer.status_code == 200
    assert answer.json()["reply"]["message"] == "you said: hello"


def test_the_same_idempotency_key_adds_nothing(web: httpx.Client) -> None:
    headers = {"Idempotency-Key": "event-1"}
    first = web.post("/sessions/s/turns", json={"message": "hello"}, headers=headers)
    again = web.post("/sessions/s/turns", json={"message": "hello"}, headers=headers)
    other = web.post("/sessions/s/turns", json={"message": "next"})

    assert first.json() == again.json()
    assert other.json()["ahead"] == 1


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/sessions/s/turns", {"message": ""}, 422),
        ("/sessions/s/turns", {"message": "a\x00b"}, 422),
        ("/sessions/s/turns", {"message": "x" * 40_000}, 422),
        ("/sessions/s/turns", {"message": 1}, 422),
        ("/sessions/s/turns", {"text": "hello"}, 422),
        ("/sessions/%00/turns", {"message": "hello"}, 422),
        (f"/sessions/{'x' * 300}/turns", {"message": "hello"}, 422),
    ],
)
def test_bad_input_is_refused(web: httpx.Client, path: str, body: dict[str, object], code: int) -> None:
    assert web.post(path, json=body).status_code == code


def test_a_turn_nobody_knows_is_unknown_and_a_bare_id_is_refused(web: httpx.Client) -> None:
    assert web.get("/turns/s:nothing").json()["status"] == "unknown"
    assert web.get("/turns/0123").status_code == 422


def test_while_redis_is_away_nothing_is_accepted_and_the_caller_is_told_to_repeat(
    web: httpx.Client, celery_broker: RedisTestBroker
) -> None:
    assert web.get("/readyz").status_code == 200
    celery_broker.container.kill("SIGKILL")

    refused = web.post("/sessions/s/turns", json={"message": "hello"}, headers={"Idempotency-Key": "1"})

    assert refused.status_code == 503
    assert refused.json()["turn_id"] == "s:1"
    assert "Retry-After" in refused.headers
    assert web.get("/readyz").status_code == 503
    celery_broker.container.restart()
    assert web.post("/sessions/s/turns", json={"message": "hi"}).json()["ahead"] == 0
