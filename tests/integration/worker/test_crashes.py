"""Workers that die or pause in the middle of a turn: their sessions go on, and nothing runs twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inturn.client import Client
from inturn.persistence import MessageQuery, PersistenceAdapter
from inturn.settings import Settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect
from tests.agents import read_journal
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

RECOVERY_SECONDS = 10.0
"""The promise for a killed worker's sessions, at default settings."""


@pytest.mark.parametrize("pool", ["threads", "gevent", "prefork"])
def test_the_sessions_of_a_killed_worker_go_on_in_time(
    pool: str,
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    journal: Path,
    record_property: Callable[[str, object], None],
) -> None:
    victim = start_worker(pool=pool, concurrency=2)
    handles = [client.respond("s", "long sleep 30"), client.respond("s", "next")]
    wait_until(lambda: read_journal(journal), what="the turn to begin")
    start_worker(pool=pool, concurrency=2)

    # The turn sleeps long only where it is to be cut off: what counts is when it begins again.
    victim.kill("SIGKILL")
    killed = time.monotonic()
    again = wait_until(lambda: [call for call in read_journal(journal) if call.started > killed], timeout=30)

    recovery = again[0].started - killed
    record_property("recovery_seconds", recovery)
    print(f"recovery with {pool}: {recovery:.1f} s")
    assert again[0].text == "long sleep 30", "order is kept: the turn that was cut off comes first"
    assert recovery < RECOVERY_SECONDS
    assert handles[1].status() == "waiting"


def test_a_turn_that_was_cut_off_is_committed_exactly_once(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path, fast: dict[str, str]
) -> None:
    victim = start_worker(**fast)
    handles = [client.respond("s", "first sleep 1"), client.respond("s", "second")]
    wait_until(lambda: read_journal(journal))

    victim.kill("SIGKILL")
    start_worker(**fast)

    assert [handle.get(timeout=30).message for handle in handles] == [
        "you said: first sleep 1",
        "you said: second",
    ]
    assert said(store, "s") == ["first sleep 1", "second"]


def test_a_paused_workers_late_commit_is_refused(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path, fast: dict[str, str]
) -> None:
    paused = start_worker(**fast)
    handle = client.respond("s", "only sleep 1")
    wait_until(lambda: read_journal(journal), what="the turn to begin")
    paused.kill("SIGSTOP")
    start_worker(**fast)
    reply = handle.get(timeout=30)  # the other worker took over, and committed
    version = store.load("s").session.version  # type: ignore[union-attr]

    paused.kill("SIGCONT")
    calls = wait_until(
        lambda: ended if len(ended := [call for call in read_journal(journal) if call.ended]) == 2 else [],
        what="the late model call to end",
    )
    # It is alive and takes part again, and what it had in hand has changed nothing.
    wait_until(lambda: "lease lost" in paused.logs(), what="the late owner to notice")
    assert client.respond("s", "after").get(timeout=30).message == "you said: after"

    assert len({call.pid for call in calls}) == 2, "two workers ran the same turn"
    assert reply.message == "you said: only sleep 1"
    assert said(store, "s") == ["only sleep 1", "after"]
    assert store.load("s").session.version == version + 1  # type: ignore[union-attr]


def test_a_message_that_the_broker_lost_is_sent_again(
    start_worker: StartWorker, client: Client, turn_settings: Settings, fast: dict[str, str]
) -> None:
    # As a crash between "offered" and "published" leaves it, or a broker that dropped the message. Until a
    # worker has seen a turn, its grace time is that of whoever offered it.
    producers = turn_settings.model_copy(update={"grace_seconds": 1.0})
    with connect(producers) as redis:
        turn = '{"kind": "respond", "session_id": "s", "message": "hello"}'
        Mailbox(redis, producers).offer("s", "s:lost", turn)
    start_worker(**fast, INTURN_GRACE_SECONDS="1")

    assert client.handle("s", "lost").get(timeout=30).message == "you said: hello"


def test_a_killed_pool_process_costs_no_turn(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(pool="prefork", concurrency=2, **fast)
    handles = [client.respond("s", "die 1"), client.respond("s", "after")]

    assert [handle.get(timeout=60).message for handle in handles] == ["you said: die 1", "you said: after"]
    assert [call.text for call in read_journal(journal)] == ["die 1", "die 1", "after"]


def test_redis_may_restart_in_the_middle(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    celery_broker: object,
    journal: Path,
    fast: dict[str, str],
) -> None:
    worker = start_worker(**fast)
    handles = [client.respond(f"s{number % 5}", f"{number} sleep 0.2") for number in range(20)]
    wait_until(lambda: len(read_journal(journal)) > 3)

    celery_broker.restart()  # type: ignore[attr-defined]

    replies = dict(client.collect(handles, timeout=60))
    assert len(replies) == 20
    for number in range(5):
        assert [int(text.split()[0]) for text in said(store, f"s{number}")] == list(range(number, 20, 5))
    assert "Unrecoverable error" not in worker.logs()
    assert client.respond("s0", "and still here").get(30).message == "you said: and still here"


def said(store: PersistenceAdapter, session_id: str) -> list[str]:
    """What the user said in this session, as committed."""
    page = store.find_messages(MessageQuery(session_id=session_id, limit=1000))
    return [message.content for message in page.items if message.role == "user"]
