"""Turns that fail: tried again in their place, or recorded; the session always goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis import Redis

from inturn.client import Client
from inturn.errors import TurnFailedError
from inturn.persistence import PersistenceAdapter
from inturn.turns.keys import Keys
from tests.agents import read_journal
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process


def test_a_provider_that_is_away_is_asked_again_and_order_is_kept(
    start_worker: StartWorker, client: Client, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(**fast)
    handles = [client.respond("s", "unavailable 2"), client.respond("s", "next")]

    assert handles[1].get(timeout=30).message == "you said: next"
    assert handles[0].get(timeout=5).message == "you said: unavailable 2"
    assert [call.text for call in read_journal(journal)] == ["unavailable 2"] * 3 + ["next"]


def test_a_waiting_try_holds_no_slot(
    start_worker: StartWorker, client: Client, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(concurrency=1, **{**fast, "INTURN_RETRY_SECONDS": "5"})
    failing = client.respond("failing", "unavailable 1")
    wait_until(lambda: read_journal(journal))

    assert client.respond("other", "hello").get(timeout=30).message == "you said: hello"
    assert failing.status() == "waiting"


def test_the_time_that_a_model_asks_for_is_waited_and_holds_up_nobody_else(
    start_worker: StartWorker, client: Client, broker_url: str, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(concurrency=1, **fast)
    waits = client.respond("s", "later 2000")

    assert client.respond("other", "hello").get(timeout=30).message == "you said: hello"
    with Redis.from_url(broker_url) as redis:
        index = Keys("inturn").of_session("s")[0]
        later = (time.time() + 1500) * 1000
        wait_until(lambda: (redis.zscore(index, "s") or 0) > later, what="the session to sleep")
    assert waits.status() == "waiting"
    assert [call.text for call in read_journal(journal)].count("later 2000") == 1


@pytest.mark.parametrize("text", ["refused", "unavailable 99", "bug"])
def test_a_turn_that_cannot_succeed_is_recorded_and_the_session_goes_on(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    journal: Path,
    fast: dict[str, str],
    text: str,
) -> None:
    start_worker(**fast, INTURN_MAX_ATTEMPTS="3")
    handles = [client.respond("s", text), client.respond("s", "next")]

    assert handles[1].get(timeout=60).message == "you said: next"
    with pytest.raises(TurnFailedError) as failed:
        handles[0].get(timeout=5)
    assert "cannot parse" not in str(failed.value), "an error's text may hold the user's words"
    assert handles[0].status() == "failed"
    loaded = store.load("s", last_messages=10)
    assert loaded is not None
    assert [message.content for message in loaded.messages] == [
        text,
        "Sorry, that did not work.",
        "next",
        "you said: next",
    ]
    attempts = sum(call.text == text for call in read_journal(journal))
    assert attempts == (1 if text == "refused" else 3)


def test_a_turn_that_kills_its_process_ends_after_its_attempts(
    start_worker: StartWorker, client: Client, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(pool="prefork", concurrency=2, **fast, INTURN_MAX_ATTEMPTS="2")
    handles = [client.respond("s", "die 99"), client.respond("s", "next")]

    assert handles[1].get(timeout=60).message == "you said: next"
    with pytest.raises(TurnFailedError, match="no attempt ended"):
        handles[0].get(timeout=5)
    assert [call.text for call in read_journal(journal)] == ["die 99", "die 99", "next"]
