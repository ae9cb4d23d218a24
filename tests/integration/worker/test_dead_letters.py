"""Turns that fail end among the dead letters, once each; their session goes on, and they can be run again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from inturn.client import Client
from inturn.contract import DeadLetter, TurnFault
from inturn.errors import TurnFailedError
from inturn.persistence import MessageQuery, PersistenceAdapter
from inturn.session import create_session
from inturn.settings import Settings
from inturn.turns import DeadLetters, Mailbox
from inturn.turns.connection import connect
from tests.agents import let_go, read_journal, reply_to
from tests.integration.worker.conftest import StartWorker, WebHere
from tests.waiting import wait_until

pytestmark = pytest.mark.process

FALLBACK = "Sorry, that did not work."


@pytest.fixture
def fast(fast: dict[str, str]) -> dict[str, str]:
    return {**fast, "INTURN_MAX_ATTEMPTS": "2"}


@pytest.fixture
def letters(turn_settings: Settings) -> Iterator[DeadLetters]:
    with connect(turn_settings) as redis:
        yield DeadLetters(redis, turn_settings)


def said(store: PersistenceAdapter, session_id: str = "s") -> list[str]:
    found = store.find_messages(MessageQuery(session_id=session_id, limit=1000)).items
    return [line.content for line in found]


def facts(letters: list[DeadLetter]) -> list[tuple[str, str | None, str, int]]:
    return [(each.turn_id, each.kind, each.error.type, each.error.attempts) for each in letters]


@pytest.mark.parametrize(
    ("text", "pool", "error"),
    [
        ("bug 2", "threads", "ValueError"),
        ("unavailable 2", "threads", "ProviderUnavailableError"),
        ("die 2", "prefork", "AttemptsExhausted"),
    ],
    ids=["raises", "unavailable", "dies"],
)
def test_a_poison_turn_is_a_dead_letter_once_and_runs_again_when_mended(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    journal: Path,
    fast: dict[str, str],
    text: str,
    pool: str,
    error: str,
) -> None:
    start_worker(pool=pool, concurrency=2, **fast)
    poison = client.respond("s", text, turn_id="1", user_id="u", channel="web")
    assert client.respond("s", "next", user_id="u").get(timeout=60).message == "you said: next"
    with pytest.raises(TurnFailedError):
        poison.get(timeout=5)

    [letter] = client.dead.find()
    assert facts([letter]) == [("s:1", "respond", error, 2)]
    assert (letter.session_id, letter.user_id, letter.channel) == ("s", "u", "web")
    assert text not in repr(letter)
    assert text in (client.dead.payload(letter) or "")
    assert said(store) == [text, FALLBACK, "next", "you said: next"]

    # It is mended: the third time it goes well. What waits is not overtaken, and does not overtake it.
    client.respond("s", "pause", user_id="u", stream=True)
    wait_until(lambda: read_journal(journal)[-1].text == "pause")
    client.respond("s", "waits", user_id="u")
    again = client.dead.retry(letter)
    last = client.respond("s", "after", user_id="u")
    assert again is not None
    assert again.turn_id == "s:1~2"
    let_go(journal)

    assert again.get(timeout=60).message == reply_to(text)
    last.get(timeout=60)
    assert said(store)[4::2] == ["pause", "waits", text, "after"]
    assert client.dead.find() == []


def test_one_that_fails_again_is_a_dead_letter_again_and_may_be_dropped(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, fast: dict[str, str]
) -> None:
    start_worker(**fast)
    with pytest.raises(TurnFailedError):
        client.respond("s", "refused", turn_id="1").get(timeout=60)

    [again] = client.dead.retry_all(client.dead.find())
    assert again.turn is not None
    with pytest.raises(TurnFailedError):
        again.turn.get(timeout=60)

    [letter] = client.dead.find()
    assert facts([letter]) == [("s:1~2", "respond", "ProviderError", 1)]
    assert client.dead.drop(letter)
    assert not client.dead.drop(letter)
    assert client.dead.find() == []
    assert said(store) == ["refused", FALLBACK] * 2
    # A late delivery of the same event is answered, and brings nothing back.
    with pytest.raises(TurnFailedError):
        client.respond("s", "refused", turn_id="1").get(timeout=60)
    assert client.dead.find() == []


def test_what_nobody_reads_and_what_no_store_keeps_are_dead_letters(
    start_worker: StartWorker,
    client: Client,
    mailbox: Mailbox,
    store: PersistenceAdapter,
    broker_url: str,
    fast: dict[str, str],
) -> None:
    start_worker(**fast)
    mailbox.offer("s", "s:bad", '{"kind": "poem"')
    unreadable = client.respond("s", "it is known", turn_id="bad")
    assert not unreadable.accepted
    kwargs = {"session_id": "s", "data": {"plan": "gold"}}
    with Celery(broker=broker_url, backend=broker_url) as bare:
        save = bare.send_task("save_session", kwargs=kwargs, task_id="no\x00where")
        with pytest.raises(Exception, match="turn_id"):
            save.get(timeout=60)

    assert client.respond("s", "next").get(timeout=60).message == "you said: next"
    with pytest.raises(TurnFailedError):
        unreadable.get(timeout=5)
    found = client.dead.find()
    assert facts(found) == [
        ("s:bad", None, "InvalidInputError", 1),
        ("no\x00where", "save_session", "InvalidInputError", 1),
    ]
    assert client.dead.payload(found[0]) == '{"kind": "poem"'
    assert found[0].payload_bytes == 15
    assert said(store) == ["next", "you said: next"], "of a text that nobody reads nothing is in the history"
    # Under an ID that can be kept the save goes well.
    again = client.dead.retry(found[1])
    assert again is not None
    assert again.get(timeout=60).data == {"plan": "gold"}


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_worker_that_dies_around_it_leaves_one_letter(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    tmp_path: Path,
    fast: dict[str, str],
    point: str,
) -> None:
    died = tmp_path / "died"
    env = {**fast, "TEST_POINT": point, "TEST_DIED": str(died)}
    start_worker(app="tests.integration.worker.dying", pool="prefork", concurrency=2, **env)
    poison = client.respond("s", "refused", turn_id="1")

    assert client.respond("s", "next").get(timeout=60).message == "you said: next"
    with pytest.raises(TurnFailedError):
        poison.get(timeout=5)
    assert died.exists()
    [letter] = client.dead.find()
    assert facts([letter])[0][:3] == ("s:1", "respond", "ProviderError")
    assert said(store) == ["refused", FALLBACK, "next", "you said: next"]


def test_messages_that_were_one_turn_are_letters_of_their_own_and_one_turn_again(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, fast: dict[str, str]
) -> None:
    for number, text in enumerate(["bug 2", "please"], 1):
        client.respond("s", text, turn_id=str(number), overlap="merge")
    start_worker(**fast)
    for number in (1, 2):
        with pytest.raises(TurnFailedError):
            client.handle("s", str(number)).get(timeout=60)

    found = client.dead.find()
    assert [(each.turn_id, each.merged_into) for each in found] == [("s:1", "s:1"), ("s:2", "s:1")]
    again = [each.turn for each in client.dead.retry_all(found)]
    replies = {each.get(timeout=60).message for each in again if each is not None}

    assert len(again) == 2
    assert len(replies) == 1
    assert said(store) == ["bug 2", "please", FALLBACK, "bug 2", "please", *replies]


def bury(letters: DeadLetters, *session_ids: str) -> None:
    for session_id in session_ids:
        fault = TurnFault(type="ValueError", message="an error of the agent's own code")
        letter = DeadLetter(session_id=session_id, turn_id=f"{session_id}:1", error=fault)
        letters.put(letter, "what was said")


def test_a_session_that_is_deleted_takes_its_letters_along(
    here: WebHere, store: PersistenceAdapter, letters: DeadLetters
) -> None:
    for session_id in ("s", "t"):
        store.commit(create_session(session_id), [], expected_version=0)
    bury(letters, "s", "t")

    assert here().delete("/sessions/s").status_code == 204

    assert [each.session_id for each in letters.letters()] == ["t"]


def test_sessions_that_are_too_old_take_their_letters_along(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, letters: DeadLetters
) -> None:
    for session_id, status in (("old", "completed"), ("active", "active")):
        session = create_session(session_id)
        session.set_status(status)  # type: ignore[arg-type]
        store.commit(session, [], expected_version=0)
    bury(letters, "old", "active")
    start_worker(INTURN_COMPLETED_DAYS="0.00000001")

    assert client.cleanup_sessions().get(timeout=60)["deleted"]["completed"] == 1

    assert [each.session_id for each in letters.letters()] == ["active"]
