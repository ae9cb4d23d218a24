"""Workers whose messages travel by RabbitMQ; mailboxes, leases and results are in Redis, as ever.

Skips where no RabbitMQ is installed. It has one node: what a cluster of them does is not shown here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from amqp.exceptions import NotFound
from celery import Celery

from inturn.cli.canary import look
from inturn.cli.doctor import examine
from inturn.client import Client
from inturn.contract import DELIVERY_QUEUE, TURNS_QUEUE
from inturn.errors import MailboxUnavailableError
from inturn.persistence import MessageQuery, PersistenceAdapter
from inturn.settings import Settings, load_settings
from inturn.turns.publishing import publish_delivery
from inturn.turns.transport import BARE_QUEUE, declare_queues, queues
from tests.agents import let_go, read_journal
from tests.channels import Receiver
from tests.integration.worker.conftest import StartWorker
from tests.integration.worker.test_flower import flower
from tests.nodes import ProcessContainer, clean_environment
from tests.servers_rabbitmq import OwnRabbitMQ
from tests.waiting import wait_until

pytestmark = pytest.mark.process

SESSIONS = [f"s{number}" for number in range(4)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRabbitMQ]:
    """One for all tests of this file that run in one process; leave it running."""
    with OwnRabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def rabbitmq(server: OwnRabbitMQ) -> OwnRabbitMQ:
    """The same, with its queues, and nothing in them."""
    server.start()
    with kombu.Connection(server.url) as connection:
        declare_queues(connection, server.url)
        for queue in queues(server.url):
            queue(connection.default_channel).purge()
    return server


@pytest.fixture
def worker_env(worker_env: dict[str, str], rabbitmq: OwnRabbitMQ) -> dict[str, str]:
    return {**worker_env, "INTURN_BROKER_URL": rabbitmq.url}


@pytest.fixture
def turn_settings(broker_url: str, store_url: str, rabbitmq: OwnRabbitMQ) -> Settings:
    return load_settings(redis_url=broker_url, database_url=store_url, broker_url=rabbitmq.url)


def said(store: PersistenceAdapter, session_id: str) -> list[str]:
    """What the user has said, as the history has it."""
    found = store.find_messages(MessageQuery(session_id=session_id, limit=1000)).items
    return [message.content for message in found if message.role == "user"]


def messages(rabbitmq: OwnRabbitMQ, queue: str) -> int:
    """How many wait in a queue; -1: there is none."""
    with rabbitmq.connection() as connection:
        channel: Any = connection.channel()
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except NotFound:
            return -1


@pytest.mark.parametrize("pool", ["threads", "gevent", "prefork"])
def test_turns_of_many_sessions_are_answered_in_their_order(
    pool: str, start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    start_worker(pool=pool, concurrency=4)
    handles = [client.respond(session, f"turn {number}") for number in range(12) for session in SESSIONS]

    for handle in handles:
        assert handle.get(timeout=60).message
    for session in SESSIONS:
        assert said(store, session) == [f"turn {number}" for number in range(12)]


def test_the_queues_are_quorum_queues_and_a_program_without_this_library_has_a_classic_one(
    start_worker: StartWorker, client: Client, rabbitmq: OwnRabbitMQ, broker_url: str
) -> None:
    start_worker()
    with Celery(broker=rabbitmq.url, backend=broker_url, set_as_current=False) as bare:
        sent = bare.send_task("respond", kwargs={"session_id": "s", "message": "hi"})
        assert sent.get(timeout=60)["response"]["message"] == "you said: hi"
    assert client.respond("s", "hello").get(timeout=60).message == "you said: hello"

    assert {queue: rabbitmq.kind_of(queue) for queue in (TURNS_QUEUE, DELIVERY_QUEUE, BARE_QUEUE)} == {
        TURNS_QUEUE: "quorum",
        DELIVERY_QUEUE: "quorum",
        BARE_QUEUE: "classic",
    }
    assert messages(rabbitmq, "celery_delayed_0") == -1


def test_a_killed_worker_is_missed_and_another_goes_on(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    journal: Path,
    fast: dict[str, str],
) -> None:
    victim = start_worker(concurrency=4, **fast)
    firsts = [client.respond(session, "first sleep 1") for session in SESSIONS]
    others = [client.respond(session, f"turn {number}") for number in range(3) for session in SESSIONS]
    wait_until(lambda: read_journal(journal), what="a turn to begin")

    victim.kill("SIGKILL")
    start_worker(concurrency=4, **fast)

    for handle in [*firsts, *others]:
        assert handle.get(timeout=60).message
    for session in SESSIONS:
        assert said(store, session) == ["first sleep 1", "turn 0", "turn 1", "turn 2"]


def test_a_broker_that_dies_with_turns_in_work_costs_none_of_them(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    journal: Path,
    fast: dict[str, str],
    rabbitmq: OwnRabbitMQ,
) -> None:
    worker = start_worker(concurrency=2, **fast)
    rabbitmq.settle()
    first = [client.respond(session, "first overloaded") for session in SESSIONS]
    waiting = [client.respond(session, "second") for session in SESSIONS]
    wait_until(lambda: read_journal(journal), what="a turn to begin")

    rabbitmq.kill()
    with pytest.raises(MailboxUnavailableError):
        client.respond("new", "while it is away", turn_id="once")
    wait_until(lambda: worker.logs().count("Trying again in") > 1, timeout=60, what="it to be missed")
    rabbitmq.start()
    let_go(journal)

    again = client.respond("new", "while it is away", turn_id="once")
    for handle in [*first, *waiting, again]:
        assert handle.get(timeout=90).message
    for session in SESSIONS:
        assert said(store, session) == ["first overloaded", "second"]
    assert said(store, "new") == ["while it is away"]


def test_a_lost_message_is_missed_by_a_sweeper(
    start_worker: StartWorker, turn_settings: Settings, rabbitmq: OwnRabbitMQ, fast: dict[str, str]
) -> None:
    with Client(turn_settings.model_copy(update={"grace_seconds": 1.0})) as client:
        handle = client.respond("s", "hello")
        with rabbitmq.connection() as connection:
            assert connection.channel().queue_purge(TURNS_QUEUE) == 1

        start_worker(**fast, INTURN_GRACE_SECONDS="1")

        assert handle.get(timeout=60).message == "you said: hello"


def test_a_broker_that_stands_still_is_told_to_producers_and_no_turn_is_lost(
    start_worker: StartWorker, client: Client, rabbitmq: OwnRabbitMQ, fast: dict[str, str]
) -> None:
    worker = start_worker(**fast, INTURN_GRACE_SECONDS="2")
    assert client.respond("s", "before").get(timeout=60).message == "you said: before"

    rabbitmq.pause()
    try:
        with pytest.raises(MailboxUnavailableError, match="the broker cannot be reached"):
            client.respond("new", "meanwhile", turn_id="once")
    finally:
        rabbitmq.resume()

    again = client.respond("new", "meanwhile", turn_id="once")
    assert again.get(timeout=90).message == "you said: meanwhile"
    assert worker.container.status == "running"


def test_replies_are_delivered(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, rabbitmq: OwnRabbitMQ
) -> None:
    with Receiver() as receiver:
        start_worker(
            INTURN_AGENT="tests.channels:agent",
            INTURN_CHANNELS="tests.channels:channel",
            TEST_RECEIVER=receiver.url,
        )
        for number in range(4):
            client.respond("s", f"turn {number}", channel="recording", address={"to": "s"})

        wait_until(lambda: len(receiver.texts("s")) == 4, timeout=60)
        assert receiver.texts("s") == [f"you said: turn {number}" for number in range(4)]
        wait_until(lambda: not client.deliveries(), timeout=60)
    assert messages(rabbitmq, DELIVERY_QUEUE) == 0


@pytest.mark.long
def test_a_delivery_whose_message_is_refused_holds_up_no_turn_and_goes_out_later(
    start_worker: StartWorker, client: Client, rabbitmq: OwnRabbitMQ, fast: dict[str, str]
) -> None:
    env = {**fast, "INTURN_AGENT": "tests.channels:agent", "INTURN_CHANNELS": "tests.channels:channel"}
    with Receiver() as receiver:
        env["TEST_RECEIVER"] = receiver.url
        with rabbitmq.connection() as connection:
            # Of another kind than ours is: whoever declares it before publishing is refused.
            connection.channel().queue_delete(DELIVERY_QUEUE)
            connection.channel().queue_declare(DELIVERY_QUEUE, durable=True, auto_delete=False)
        try:
            worker = start_worker(**env, queues=TURNS_QUEUE)
            turns = [f"turn {number}" for number in range(3)]
            handles = [client.respond("s", turn, channel="recording", address={"to": "s"}) for turn in turns]
            for handle in handles:
                assert handle.get(timeout=60).message
            wait_until(lambda: {handle.status() for handle in handles} == {"done"}, timeout=60)
            assert "delivery not published yet" in worker.logs()
            assert "error=PreconditionFailed" in worker.logs()
            assert "Traceback" not in worker.logs()
            assert len(client.deliveries("s")) == 3
            # Whoever publishes is told in one way, so those who drive a session catch it too.
            with pytest.raises(MailboxUnavailableError, match="the broker refuses the message"):
                publish_delivery(client._app, "s")
        finally:
            with rabbitmq.connection() as connection:
                connection.channel().queue_delete(DELIVERY_QUEUE)

        start_worker(**env)
        wait_until(lambda: receiver.texts("s") == [f"you said: {turn}" for turn in turns], timeout=90)


def test_beat_has_retention_done(
    start_worker: StartWorker, tmp_path: Path, worker_env: dict[str, str]
) -> None:
    worker = start_worker()
    beat = ProcessContainer(
        "beat",
        [sys.executable, "-m", "celery", "-A", "worker", "beat", "-s", str(tmp_path / "schedule")],
        directory=tmp_path,
        env={**clean_environment(), **worker_env, "INTURN_CLEANUP_SECONDS": "1"},
        prompt="beat: Starting",
    )
    try:
        beat.start()
        wait_until(lambda: "retention" in worker.logs(), timeout=60)
    finally:
        beat.remove()
        print(beat.tail())


def test_the_canary_and_the_doctor_find_all_well_and_a_silent_worker(
    start_worker: StartWorker,
    turn_settings: Settings,
    worker_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = start_worker()
    (seen,) = look(turn_settings, worker.hostname(), 30)
    assert (seen.status, "turns" in seen.found) == ("ok", True)
    for name in ("REDIS_URL", "DATABASE_URL", "INTURN_BROKER_URL", "INTURN_AGENT"):
        monkeypatch.setenv(name, worker_env[name])
    found = {check.name: check for check in examine()}
    assert (found["broker"].status, found["worker"].status) == ("ok", "ok")
    assert "guest" not in found["broker"].found

    worker.kill("SIGSTOP")
    assert look(turn_settings, worker.hostname(), 1)[0].status == "failed"
    worker.kill("SIGCONT")
    wait_until(lambda: look(turn_settings, worker.hostname(), 5)[0].status == "ok", timeout=60)


def test_a_queue_that_others_have_made_differently_is_named_by_the_doctor(
    rabbitmq: OwnRabbitMQ, worker_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with rabbitmq.connection() as connection:
        channel = connection.channel()
        channel.queue_delete(TURNS_QUEUE)
        channel.queue_declare(TURNS_QUEUE, durable=True, auto_delete=False)
    for name in ("REDIS_URL", "DATABASE_URL", "INTURN_BROKER_URL", "INTURN_AGENT"):
        monkeypatch.setenv(name, worker_env[name])

    try:
        found = {check.name: check for check in examine()}
    finally:
        with rabbitmq.connection() as connection:
            connection.channel().queue_delete(TURNS_QUEUE)

    assert found["broker"].status == "failed"
    assert "turns" in found["broker"].found
    assert "delete it" in found["broker"].mend


def test_flower_sees_turns_end(
    start_worker: StartWorker, client: Client, tmp_path: Path, worker_env: dict[str, str]
) -> None:
    password = {"FLOWER_BASIC_AUTH": "ann:secret-enough"}
    with flower(tmp_path, {**worker_env, **password}, "127.0.0.1") as (_, page):
        worker = start_worker()
        mine = ("ann", "secret-enough")
        wait_until(
            lambda: worker.hostname() in page.get("/api/workers", auth=mine, params={"refresh": 1}).json(),
            timeout=90,
        )
        handles = [client.respond("s", f"turn {number}") for number in range(3)]
        for handle in handles:
            handle.get(timeout=60)

        def states() -> list[str]:
            tasks = page.get("/api/tasks", auth=mine).json()
            return [tasks.get(handle.turn_id, {}).get("state", "") for handle in handles]

        wait_until(lambda: states() == ["SUCCESS"] * 3, timeout=60, what="all three in Flower")
