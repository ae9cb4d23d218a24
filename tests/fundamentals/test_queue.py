"""Turns through the queue, one idea a test."""

from __future__ import annotations

import pytest
from celery import Celery

from inturn.client import Client
from inturn.persistence import PersistenceAdapter
from tests.integration.worker.conftest import StartWorker

pytestmark = pytest.mark.process


def test_a_message_is_enqueued_and_its_reply_comes_back(start_worker: StartWorker, client: Client) -> None:
    """A producer offers a message under a session's ID; a worker answers."""
    start_worker()

    handle = client.respond("user-123", "hello")

    assert handle.get(timeout=30).message == "you said: hello"


def test_turns_wait_in_their_mailbox_until_a_worker_comes(start_worker: StartWorker, client: Client) -> None:
    """Accepting needs no worker: the turn is safe in Redis."""
    handle = client.respond("user-123", "hello")
    assert handle.status() == "waiting"

    start_worker()

    assert handle.get(timeout=30).message == "you said: hello"


def test_a_sessions_turns_run_in_the_order_of_their_arrival(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    """However many slots a worker has, one session uses one at a time."""
    start_worker(concurrency=8)

    handles = [client.respond("user-123", f"message {number}") for number in range(5)]
    for handle in handles:
        handle.get(timeout=30)

    loaded = store.load("user-123", last_messages=10)
    assert loaded is not None
    said = [message.content for message in loaded.messages if message.role == "user"]
    assert said == [f"message {number}" for number in range(5)]


def test_the_same_event_delivered_twice_is_one_turn(start_worker: StartWorker, client: Client) -> None:
    """A webhook that repeats itself names its event, and gets the same reply."""
    start_worker()

    first = client.respond("user-123", "hello", turn_id="event-1")
    again = client.respond("user-123", "hello", turn_id="event-1")

    assert first.get(timeout=30) == again.get(timeout=30)


def test_a_session_is_changed_from_outside_in_order_with_its_turns(
    start_worker: StartWorker, client: Client
) -> None:
    """`save_session` waits its turn like everything else: one writer per session, always."""
    start_worker()

    client.respond("user-123", "hello")
    saved = client.save_session("user-123", data={"plan": "gold"}, status="completed")

    assert saved.get(timeout=30).data == {"plan": "gold"}


def test_a_program_without_this_library_can_send_a_turn(start_worker: StartWorker, broker_url: str) -> None:
    """Celery and the task's name are enough."""
    start_worker()

    with Celery(broker=broker_url, backend=broker_url) as app:
        result = app.send_task("respond", kwargs={"session_id": "user-123", "message": "hello"})
        assert result.get(timeout=30)["response"]["message"] == "you said: hello"
