"""With the inbox in the database Redis may lose all it has, or be away: nothing is lost or reordered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from pytest_celery import RedisTestBroker
from redis import Redis

from inturn.client import Client, TurnHandle
from inturn.persistence import MessageQuery, PersistenceAdapter
from inturn.persistence.inbox import Inbox
from inturn.session.state import utcnow
from inturn.settings import Settings, load_settings
from inturn.testing.history import Accepted, check_store
from tests.agents import read_journal
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


@pytest.fixture
def worker_env(worker_env: dict[str, str], fast: dict[str, str]) -> dict[str, str]:
    return {**worker_env, **fast, "INTURN_INBOX": "database"}


@pytest.fixture
def turn_settings(broker_url: str, store_url: str) -> Settings:
    return load_settings(redis_url=broker_url, database_url=store_url, inbox="database")


@pytest.fixture
def inbox(store_url: str) -> Iterator[Inbox]:
    inbox = Inbox(store_url)
    yield inbox
    inbox.close()


def said(store: PersistenceAdapter, session_id: str) -> list[str]:
    page = store.find_messages(MessageQuery(session_id=session_id, limit=500))
    return [message.content for message in page.items if message.role == "user"]


def ended(inbox: Inbox, sessions: list[str]) -> bool:
    """Whether every turn that was accepted has ended: the inbox forgets it then, and not before."""
    return not inbox.among(sessions)


@pytest.mark.parametrize("store_kind", ["postgresql", "sqlite"])
def test_redis_loses_everything_in_mid_run_three_times(
    store_kind: str,
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    inbox: Inbox,
    broker_url: str,
) -> None:
    del store_kind
    for _ in range(2):
        start_worker(concurrency=4)
    sessions = [f"s{number}" for number in range(12)]
    losses = (2, 4, 6)
    # Before a loss, so long that something is there to be lost.
    texts = [f"message {round_} sleep {1 if round_ in losses else 0.05}" for round_ in range(9)]
    accepted: list[Accepted] = []
    with Redis.from_url(broker_url) as redis:
        for round_, text in enumerate(texts):
            for session_id in sessions:
                # A message that comes right after the loss must not overtake those that were lost.
                handle = client.respond(session_id, text, turn_id=f"t{round_}")
                accepted.append(Accepted(session_id, handle.turn_id, len(accepted), utcnow()))
            if round_ in losses:
                assert not ended(inbox, sessions), "nothing was lost: nothing would be shown"
                redis.flushall()

    wait_until(lambda: ended(inbox, sessions), timeout=120, what="every accepted turn to end")
    verdict = check_store(store, accepted)
    assert verdict.ok, verdict.explain()
    assert verdict.committed == len(accepted)
    for session_id in sessions:
        assert said(store, session_id) == texts


def test_turns_are_accepted_while_redis_is_away_and_run_in_order_when_it_is_back(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    inbox: Inbox,
    celery_broker: RedisTestBroker,
) -> None:
    start_worker()
    first = client.respond("s", "one")
    assert first.get(timeout=30).message == "you said: one"
    celery_broker.kill()
    while_away = [client.respond("s", "two"), client.respond("other", "hello")]
    assert [handle.accepted for handle in while_away] == [True, True]
    celery_broker.restart()
    wait_until(lambda: _answers(client), timeout=30)
    last = client.respond("s", "three")

    assert last.get(timeout=60).message == "you said: three"
    assert while_away[1].get(timeout=60).message == "you said: hello"
    assert said(store, "s") == ["one", "two", "three"]
    wait_until(lambda: ended(inbox, ["s", "other"]), timeout=30)


def test_a_producer_that_died_before_the_offer_has_its_turn_run(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, inbox: Inbox, journal: Path
) -> None:
    handle = client.respond("s", "for its payload only")
    (turn,) = inbox.turns("s")
    assert client.cancel("s", handle.turn_id) == "dropped"
    inbox.put("other", "left-behind", turn.payload.replace('"s"', '"other"'), turn.overlap)
    start_worker()

    wait_until(lambda: said(store, "other") == ["for its payload only"], timeout=60)
    wait_until(lambda: ended(inbox, ["other"]), timeout=30)
    assert len([call for call in read_journal(journal) if call.ended is not None]) == 1


def test_a_bare_message_is_in_the_inbox_before_it_is_acknowledged(
    start_worker: StartWorker,
    celery_setup_app: Celery,
    client: Client,
    store: PersistenceAdapter,
    inbox: Inbox,
    journal: Path,
    broker_url: str,
) -> None:
    start_worker()
    first = client.respond("s", "first sleep 2")
    wait_until(lambda: read_journal(journal), what="the turn to begin")
    celery_setup_app.send_task(
        "respond", kwargs={"session_id": "s", "message": "bare"}, task_id="bare-1", queue="turns"
    )
    wait_until(lambda: inbox.has("s", "bare-1"), timeout=30)
    with Redis.from_url(broker_url) as redis:
        redis.flushall()

    wait_until(lambda: said(store, "s") == ["first sleep 2", "bare"], timeout=60)
    assert first.turn_id
    wait_until(lambda: ended(inbox, ["s"]), timeout=30)


def test_a_killed_worker_leaves_what_it_had_in_both(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, inbox: Inbox, journal: Path
) -> None:
    victim = start_worker()
    handles: list[TurnHandle] = [client.respond("s", "first sleep 1"), client.respond("s", "second")]
    wait_until(lambda: read_journal(journal), what="the turn to begin")
    victim.kill("SIGKILL")
    start_worker()

    assert [handle.get(timeout=60).message for handle in handles] == [
        *("you said: first sleep 1", "you said: second")
    ]
    assert said(store, "s") == ["first sleep 1", "second"]
    wait_until(lambda: ended(inbox, ["s"]), timeout=30)


def _answers(client: Client) -> bool:
    try:
        client.ping()
    except Exception:
        return False
    return True
