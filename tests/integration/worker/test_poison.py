"""What must stop no session for good: revoked messages, turns that cannot be recorded, refusing stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from inturn.client import Client
from inturn.turns import Mailbox
from inturn.turns.lease import create_token
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process


def test_a_revoked_message_is_only_a_wake_up_and_stops_no_session(
    start_worker: StartWorker, client: Client, fast: dict[str, str]
) -> None:
    node = start_worker(**fast, INTURN_GRACE_SECONDS="1")
    first = client.handle("s", "first")
    node.app.control.revoke(first.turn_id)
    wait_until(lambda: "revoked" in node.logs(), what="the worker to hear of it")

    client.respond("s", "hello", turn_id="first")

    assert client.respond("s", "next").get(timeout=15).message == "you said: next"
    assert first.get(timeout=5).message == "you said: hello"


def test_a_turn_that_no_store_can_record_fails_and_the_session_goes_on(
    start_worker: StartWorker, client: Client, broker_url: str, fast: dict[str, str]
) -> None:
    start_worker(**fast)
    with Celery(broker=broker_url, backend=broker_url) as bare:
        bad = bare.send_task("respond", kwargs={"session_id": "s", "message": "hi"}, task_id="no\x00where")
        with pytest.raises(Exception, match="turn_id"):
            bad.get(timeout=15)

    assert client.respond("s", "next").get(timeout=15).message == "you said: next"


@pytest.mark.parametrize(
    ("task", "kwargs", "words"),
    [
        ("respond", {"session_id": "s", "mesage": "hi"}, "mesage"),
        ("respond", {"message": "hi"}, "session ID"),
        ("save_session", {"session_id": "s", "date": {}}, "date"),
    ],
)
def test_a_bare_send_task_with_wrong_names_is_told_so(
    start_worker: StartWorker, broker_url: str, task: str, kwargs: dict[str, Any], words: str
) -> None:
    start_worker()
    with Celery(broker=broker_url, backend=broker_url) as bare, pytest.raises(Exception, match=words):
        bare.send_task(task, kwargs=kwargs).get(timeout=15)


def test_a_save_that_was_committed_is_not_called_failed_after_its_attempts(
    start_worker: StartWorker, client: Client, mailbox: Mailbox, broker_url: str, fast: dict[str, str]
) -> None:
    # Its owners committed it, and died before they could store its result: all the attempts it has.
    node = start_worker(**fast)
    client.save_session("s", data={"plan": "gold"}, turn_id="save").get(timeout=30)
    node.kill("SIGKILL")
    turn = client.handle("s", "save")
    with Redis.from_url(broker_url) as redis:
        redis.flushdb()
    client.save_session("s", data={"plan": "gold"}, turn_id="save")
    for _ in range(2):
        lease = mailbox.begin("s", turn.turn_id, create_token()).lease
        assert lease is not None
        mailbox.release(lease, delay=0.001)
        wait_until(lambda: list(mailbox.sweep()))
    start_worker(**fast, INTURN_MAX_ATTEMPTS="1")

    assert turn.get(timeout=30).data == {"plan": "gold"}


def test_a_store_that_refuses_costs_no_threads_and_its_turns_wait(
    start_worker: StartWorker, client: Client, tmp_path: Path, fast: dict[str, str]
) -> None:
    broken = tmp_path / "broken.db"
    broken.write_text("this is no database at all, " * 100)
    node = start_worker(**{**fast, "DATABASE_URL": f"sqlite:///{broken}", "INTURN_MAX_ATTEMPTS": "1"})
    handles = [client.respond(f"s{number}", "hello") for number in range(10)]
    wait_until(lambda: node.logs().count("turn will be tried again") >= 20)
    threads = len(list(Path(f"/proc/{node.container.pid}/task").iterdir()))

    broken.write_bytes(b"")  # what SQLite takes for a new database

    assert [handle.get(timeout=30).message for handle in handles] == ["you said: hello"] * 10
    assert threads < 20
