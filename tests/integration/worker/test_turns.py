"""Turns through real workers: each kind of pool passes the same tests."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult

from inturn.client import Client
from inturn.persistence import MessageQuery, PersistenceAdapter
from inturn.session.state import utcnow
from inturn.testing.history import Accepted, check_store
from tests.agents import read_journal
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

POOLS = ["threads", "gevent", "prefork"]


@pytest.mark.parametrize(
    ("pool", "store_kind"), [("threads", "postgresql"), ("gevent", "postgresql"), ("prefork", "sqlite")]
)
def test_bursts_over_many_sessions_run_once_in_order_and_never_overlap(
    pool: str, start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    for _ in range(2):
        start_worker(pool=pool, concurrency=4)
    accepted, handles = [], []
    for number, session in itertools.product(range(5), range(20)):
        handle = client.respond(f"s{session}", f"s{session} message {number} sleep 0.01")
        handles.append(handle)
        accepted.append(Accepted(handle.session_id, handle.turn_id, number, utcnow()))

    results = [result for _, result in client.collect(handles, timeout=60)]

    verdict = check_store(store, accepted, results)
    assert verdict.ok, str(verdict)
    assert verdict.committed == len(handles) == len(results)
    calls = read_journal(journal)
    assert len(calls) == len(handles)
    by_session = sorted(calls, key=lambda call: (call.text.split()[0], call.started))
    for one, other in itertools.pairwise(by_session):
        if one.text.split()[0] == other.text.split()[0]:
            assert one.ended is not None
            assert one.ended <= other.started, "two turns of one session ran at the same time"


@pytest.mark.parametrize("pool", POOLS)
def test_a_reply_and_its_state_come_back(
    pool: str, start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    start_worker(pool=pool, concurrency=2)

    saved = client.save_session("s", data={"plan": "gold"}, metadata={"source": "crm"})
    reply = client.respond("s", "hello", user_id="ada").get(timeout=30)
    done = client.save_session("s", status="completed", messages=[{"role": "system", "content": "bye"}])

    assert saved.get(timeout=30).data == {"plan": "gold"}
    assert reply.message == "you said: hello"
    assert done.get(timeout=30).finish_reason == "saved"
    loaded = store.load("s", last_messages=10)
    assert loaded is not None
    assert loaded.session.status == "completed"
    assert loaded.session.data == {"plan": "gold"}
    assert loaded.session.metadata["source"] == "crm"
    assert [(m.role, m.content) for m in loaded.messages] == [
        ("user", "hello"),
        ("assistant", "you said: hello"),
        ("system", "bye"),
    ]


@pytest.mark.parametrize("pool", POOLS)
def test_a_warm_shutdown_finishes_the_turn_in_hand_and_hands_over_the_rest(
    pool: str, start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    first = start_worker(pool=pool, concurrency=2)
    handles = [client.respond("s", f"{number} sleep 0.5") for number in range(3)]
    wait_until(lambda: read_journal(journal), what="the first turn to begin")

    first.kill("SIGTERM")
    wait_until(lambda: first.container.status == "exited", timeout=30)
    calls = read_journal(journal)
    assert all(call.ended for call in calls), "a turn was cut off"
    assert len(calls) < len(handles), "nothing was left to hand over"
    start_worker(pool=pool, concurrency=2)

    assert [handle.get(timeout=30).message for handle in handles] == [
        f"you said: {number} sleep 0.5" for number in range(3)
    ]
    assert len(read_journal(journal)) == 3


def test_the_same_turn_id_runs_once(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    start_worker()
    first = client.respond("s", "hello", turn_id="event-1")
    reply = first.get(timeout=30)

    again = client.respond("s", "hello", turn_id="event-1")
    retried = client.respond("s", "hello", turn_id=first.turn_id)

    assert (first.accepted, again.accepted, retried.accepted) == (True, False, False)
    assert again.get(timeout=5) == retried.get(timeout=5) == reply
    assert len(read_journal(journal)) == 1


def test_the_same_turn_id_in_two_sessions_is_two_turns(start_worker: StartWorker, client: Client) -> None:
    start_worker()
    handles = [client.respond(session, f"I am {session}", turn_id="1") for session in ("a", "b")]

    assert [handle.get(timeout=30).message for handle in handles] == ["you said: I am a", "you said: I am b"]


def test_a_bare_send_task_works_without_this_library(
    start_worker: StartWorker, broker_url: str, store: PersistenceAdapter
) -> None:
    start_worker()
    with Celery(broker=broker_url, backend=broker_url) as bare:
        results: list[AsyncResult[Any]] = [
            bare.send_task("respond", kwargs={"session_id": "s", "message": f"hi {number}"})
            for number in range(3)
        ]
        saved = bare.send_task("save_session", kwargs={"session_id": "s", "data": {"a": 1}})

        replies = [result.get(timeout=30) for result in results]
        assert saved.get(timeout=30)["response"]["data"] == {"a": 1}

    assert sorted(reply["response"]["message"] for reply in replies) == [
        f"you said: hi {n}" for n in range(3)
    ]
    assert len(store.find_messages(MessageQuery(session_id="s")).items) == 6


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"session_id": "", "message": "hi"}, "must not be empty"),
        ({"session_id": {"$ne": None}, "message": "hi"}, "must be a string"),
        ({"session_id": "s", "message": ["hi"]}, "must be a string"),
        ({"session_id": "s", "message": "x" * 40_000}, "32000 characters"),
    ],
)
def test_a_bare_send_task_with_bad_input_is_told_so(
    start_worker: StartWorker, broker_url: str, kwargs: dict[str, Any], words: str
) -> None:
    start_worker()
    with Celery(broker=broker_url, backend=broker_url) as bare:
        result = bare.send_task("respond", kwargs=kwargs)

        with pytest.raises(Exception, match=words):
            result.get(timeout=30)


def test_async_result_works_for_a_turn_that_had_no_message_of_its_own(
    start_worker: StartWorker, client: Client, broker_url: str
) -> None:
    client.respond("s", "first sleep 0.3")
    parked = client.respond("s", "second")
    assert parked.status() == "waiting"
    start_worker()

    with Celery(broker=broker_url, backend=broker_url) as bare:
        assert (
            AsyncResult(parked.turn_id, app=bare).get(timeout=30)["response"]["message"] == "you said: second"
        )
    assert parked.status() == "done"


def test_a_cancelled_turn_never_runs(start_worker: StartWorker, client: Client, journal: Path) -> None:
    from inturn.errors import TurnCancelledError

    handles = [client.respond("s", f"message {number}") for number in range(3)]
    assert handles[1].cancel() == "dropped"
    start_worker()

    assert handles[2].get(timeout=30).message == "you said: message 2"
    with pytest.raises(TurnCancelledError):
        handles[1].get(timeout=5)
    assert handles[1].status() == "cancelled"
    assert [call.text for call in read_journal(journal)] == ["message 0", "message 2"]


def test_nothing_that_a_user_says_is_shown_by_celery(
    start_worker: StartWorker, client: Client, broker_url: str, fast: dict[str, str]
) -> None:
    node = start_worker(INTURN_LOG_LEVEL="DEBUG", **fast, INTURN_MAX_ATTEMPTS="2")
    seen: list[Any] = []
    marker = "cucumber-4711"
    with Celery(broker=broker_url, backend=broker_url) as bare, listening(bare, seen):
        node.app.control.enable_events()
        result = bare.send_task("respond", kwargs={"session_id": "s", "message": f"{marker} sleep 1"})
        client.respond("s", f"{marker} bug")
        active = wait_until(lambda: [task for some in _active(bare) for task in some])
        assert marker in repr(result.get(timeout=30))
        for kind in ("task-received", "task-succeeded", "task-failed"):
            wait_until(lambda: any(event["type"] == kind for event in seen), what=kind)  # noqa: B023

    assert marker not in repr(active)
    assert marker not in repr(seen)
    assert marker not in node.logs()


def _active(app: Celery) -> list[Any]:
    return list((app.control.inspect(timeout=1).active() or {}).values())


@contextmanager
def listening(app: Celery, seen: list[Any]) -> Iterator[None]:
    """Collect the events of all workers while the block runs, as Flower does."""
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        thread = threading.Thread(target=lambda: receiver.capture(limit=None, timeout=None, wakeup=True))
        with receiver.consumer_context() as (_, channel, _consumers):
            assert channel is not None
        thread.start()
        wait_until(lambda: any(event["type"] == "worker-heartbeat" for event in seen))
        try:
            yield
        finally:
            receiver.should_stop = True
            thread.join()
