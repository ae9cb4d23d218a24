"""Messages that come while their session is busy: merged, interrupting, rejected; none is ever dropped."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from redis import Redis

from inturn.client import Client, TurnHandle
from inturn.contract import Piece, Response, TurnResult
from inturn.errors import SessionBusyError, TurnFailedError
from inturn.persistence import MessageQuery, PersistenceAdapter
from inturn.session.state import Message, utcnow
from inturn.testing.history import Accepted, check_store
from inturn.turns import Mailbox
from tests.agents import let_go, read_journal, reply_to
from tests.channels import Receiver
from tests.integration.worker.conftest import StartWorker
from tests.overlap_agents import died
from tests.waiting import wait_until

pytestmark = pytest.mark.process


def rows(store: PersistenceAdapter, session_id: str = "s") -> list[Message]:
    return list(store.find_messages(MessageQuery(session_id=session_id, limit=1000)).items)


def texts(store: PersistenceAdapter, session_id: str = "s") -> list[str]:
    return [row.content for row in rows(store, session_id)]


def keep_busy(client: Client, journal: Path, text: str = "wait pause") -> TurnHandle:
    """A turn that runs until `let_go`."""
    handle = client.respond("s", text, stream=True)
    wait_until(lambda: read_journal(journal), what="the turn to begin")
    return handle


def replies(handles: Iterable[TurnHandle]) -> list[Response]:
    return [handle.get(timeout=60) for handle in handles]


def forget(broker_url: str, *handles: TurnHandle) -> None:
    """Let Redis lose what it knows of sessions, and of these turns."""
    with Redis.from_url(broker_url) as redis:
        redis.delete(*redis.scan_iter("inturn:*"), *(f"celery-task-meta-{each.turn_id}" for each in handles))


@pytest.mark.parametrize("pool", ["threads", "gevent", "prefork"])
def test_messages_that_came_while_a_turn_ran_become_one_turn(
    pool: str, start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    start_worker(pool=pool, concurrency=2)
    keep_busy(client, journal)
    handles = [client.respond("s", text, overlap="merge") for text in ("a table", "for four", "on Friday")]
    assert [handle.status() for handle in handles] == ["waiting"] * 3
    let_go(journal)

    first, *others = replies(handles)

    assert first.message == "you said: a table\nfor four\non Friday"
    assert others == [first, first]
    assert first.turn_id == handles[0].turn_id, "it tells which turn they became"
    assert [handle.status() for handle in handles] == ["done"] * 3
    assert len(read_journal(journal)) == 2
    *_, one, two, three, reply = rows(store)
    assert [row.content for row in (one, two, three)] == ["a table", "for four", "on Friday"]
    assert [row.turn_id for row in (one, two, three)] == [handle.turn_id for handle in handles]
    assert [row.event for row in (one, two, three)] == [
        None,
        {"merged_into": first.turn_id},
        {"merged_into": first.turn_id},
    ]
    assert (reply.role, reply.content, reply.turn_id) == ("assistant", first.message, first.turn_id)


def test_each_merged_turn_has_its_result_in_celery(
    start_worker: StartWorker, client: Client, broker_url: str
) -> None:
    handles = [client.respond("s", text, overlap="merge") for text in ("one", "two")]
    start_worker()

    with Celery(broker=broker_url, backend=broker_url) as bare:
        results: list[Any] = [AsyncResult(each.turn_id, app=bare).get(timeout=30) for each in handles]

    assert [result["turn_id"] for result in results] == [handle.turn_id for handle in handles]
    assert results[0]["response"] == results[1]["response"]


def test_a_merged_turn_is_known_ever_after(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    mailbox: Mailbox,
    broker_url: str,
    journal: Path,
) -> None:
    def send() -> list[TurnHandle]:
        return [
            client.respond("s", text, turn_id=text, overlap="merge") for text in ("first", "second", "third")
        ]

    handles = send()
    start_worker()
    before = replies(handles)
    assert [handle.accepted for handle in send()] == [False] * 3, "the mailbox knows them"
    wait_until(lambda: not mailbox.waiting(["s"]))
    forget(broker_url, *handles)

    again = [client.respond("s", text, turn_id=text) for text in ("third", "first", "second")]

    assert [handle.accepted for handle in again] == [True] * 3, "Redis has forgotten them"
    assert replies(again) == before
    assert len(read_journal(journal)) == 1, "the store knows them"
    assert texts(store) == ["first", "second", "third", before[0].message]


def test_a_message_that_comes_again_takes_no_new_one_along(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, broker_url: str
) -> None:
    start_worker()
    first = client.respond("s", "old", turn_id="old", overlap="merge")
    before = first.get(timeout=30)
    wait_until(lambda: first.status() == "done")
    forget(broker_url, first)

    handles = [client.respond("s", text, turn_id=text, overlap="merge", quiet=1) for text in ("old", "new")]

    assert [answer.message for answer in replies(handles)] == [before.message, "you said: new"]
    assert texts(store) == ["old", before.message, "new", "you said: new"]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_that_dies_in_a_merged_turn_costs_none_of_its_messages(
    pool: str,
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    journal: Path,
    fast: dict[str, str],
) -> None:
    handles = [client.respond("s", text, overlap="merge") for text in ("first sleep 1", "second")]
    victim = start_worker(pool=pool, concurrency=2, **fast)
    wait_until(lambda: read_journal(journal), what="the turn to begin")
    late = client.respond("s", "late", overlap="merge")
    victim.kill("SIGKILL")
    start_worker(pool=pool, concurrency=2, **fast)

    first, second = replies(handles)

    assert first == second
    assert first.message == "you said: first sleep 1\nsecond"
    assert late.get(timeout=30).message == "you said: late"
    assert texts(store) == ["first sleep 1", "second", first.message, "late", "you said: late"]


@pytest.mark.parametrize("forgetful", [False, True], ids=["redis remembers", "redis has lost everything"])
def test_a_worker_that_dies_after_the_commit_leaves_each_merged_turn_known(
    forgetful: bool,
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    broker_url: str,
    journal: Path,
    fast: dict[str, str],
) -> None:
    def send() -> list[TurnHandle]:
        return [
            client.respond("s", text, turn_id=text, overlap="merge", quiet=0.5)
            for text in ("first", "fatal", "last")
        ]

    victim = start_worker(**fast, INTURN_AGENT="tests.overlap_agents:agent")
    handles = send()
    wait_until(lambda: victim.container.status == "exited", what="the worker to die")
    assert died(journal).exists()
    assert len(texts(store)) == 4, "it was committed"
    if forgetful:
        forget(broker_url, *handles)
        handles = send()[::-1]
    start_worker(**fast, INTURN_AGENT="tests.overlap_agents:agent")

    answers = replies(handles)

    assert [answer.message for answer in answers] == ["you said: first\nfatal\nlast"] * 3
    assert len(read_journal(journal)) == 1
    assert len(texts(store)) == 4
    loaded = store.load("s")
    assert loaded is not None
    assert loaded.session.journal == {}, "nothing is left to note"


def test_the_readers_of_merged_turns_see_the_one_reply_while_it_is_written(
    start_worker: StartWorker, client: Client, journal: Path
) -> None:
    handles = [
        client.respond("s", text, overlap="merge", stream=stream)
        for text, stream in (("one", False), ("two pause", True), ("three", True))
    ]
    start_worker()
    readers = [handle.stream(timeout=30) for handle in handles[1:]]
    begun = [next(reader).text for reader in readers]
    assert handles[2].status() == "running"
    let_go(journal)

    told = [text + joined(reader) for text, reader in zip(begun, readers, strict=True)]

    assert told == [handles[0].get(timeout=30).message] * 2
    [whole] = handles[0].stream(timeout=30)
    assert whole.text == told[0]


def test_a_merged_turn_is_delivered_once_whoever_dies(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, fast: dict[str, str]
) -> None:
    with Receiver() as receiver:
        env = {
            **fast,
            "INTURN_AGENT": "tests.channels:agent",
            "INTURN_CHANNELS": "tests.channels:channel",
            "TEST_RECEIVER": receiver.url,
        }
        victim = start_worker(**env)
        given: dict[str, Any] = {"channel": "recording", "address": {"to": "ada"}}
        handles = [
            client.respond("s", text, overlap="merge", quiet=0.5, **given)
            for text in ("one", "dies-after-commit", "two")
        ]
        wait_until(lambda: victim.container.status == "exited", what="the worker to die")
        start_worker(**env)

        [reply, *_] = replies(handles)
        loaded = wait_until(lambda: sent_in(store, "s"), what="the reply to be sent")

        assert loaded == [reply.turn_id]
        assert receiver.texts("ada") == [reply.message]


def test_merged_turns_fail_together_and_every_message_is_kept(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, fast: dict[str, str]
) -> None:
    handles = [client.respond("s", text, overlap="merge") for text in ("hello", "refused")]
    following = client.respond("s", "next")
    start_worker(**fast)

    for handle in handles:
        with pytest.raises(TurnFailedError, match="ProviderError"):
            handle.get(timeout=30)
        assert handle.status() == "failed"
    assert following.get(timeout=30).message == "you said: next"
    assert texts(store)[:3] == ["hello", "refused", "Sorry, that did not work."]


def test_to_cancel_one_of_the_turns_that_run_as_one_stops_them(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    handles = [
        client.respond("s", text, overlap="merge", stream=True) for text in ("slowly 0.02 count 2000", "and")
    ]
    start_worker()
    next(handles[0].stream(timeout=30))

    assert handles[1].cancel() == "signalled"

    first, second = replies(handles)
    assert first == second
    assert first.finish_reason == "interrupted"
    assert texts(store) == ["slowly 0.02 count 2000", "and", first.message]


def test_a_quiet_time_lets_the_rest_come(
    start_worker: StartWorker, client: Client, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(**fast)
    handles = [client.respond("s", text, overlap="merge", quiet=1) for text in ("one", "two", "three")]
    sent = time.monotonic()

    answers = replies(handles)

    assert [answer.message for answer in answers] == ["you said: one\ntwo\nthree"] * 3
    [call] = read_journal(journal)
    assert call.started - sent > 0.9


def test_settings_choose_for_a_channel(
    start_worker: StartWorker, turn_settings: Any, fast: dict[str, str]
) -> None:
    chosen = turn_settings.model_copy(update={"overlap": "enqueue, sms=merge", "quiet_seconds": "sms=0.5"})
    start_worker(**fast)
    with Client(chosen) as client:
        by_sms = [client.respond("s", text, user_id="ada", channel="sms") for text in ("one", "two")]
        by_web = [client.respond("w", text, user_id="ada", channel="web") for text in ("one", "two")]

        assert [answer.message for answer in replies(by_sms)] == ["you said: one\ntwo"] * 2
        assert [answer.message for answer in replies(by_web)] == ["you said: one", "you said: two"]


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_a_new_message_interrupts_the_reply_that_is_written(
    pool: str, start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    # No heartbeat comes in time to tell, and the whole reply would take 40 seconds.
    start_worker(pool=pool, concurrency=2, INTURN_LEASE_SECONDS="120", INTURN_RENEW_SECONDS="60")
    message = "slowly 0.02 count 2000"
    running = client.respond("s", message, stream=True)
    reader = running.stream(timeout=30)
    pieces = list(itertools.islice(reader, 3))

    newer = client.respond("s", "no, wait", overlap="interrupt")
    pieces.extend(reader)

    partial, reply = running.get(timeout=30), newer.get(timeout=30)
    assert partial.finish_reason == "interrupted"
    assert partial.message == joined(pieces)
    assert reply_to(message).startswith(partial.message)
    assert 0 < len(partial.message) < len(reply_to(message))
    assert reply.message == "you said: no, wait"
    asked, stopped, *rest = rows(store)
    assert (asked.content, stopped.content) == (message, partial.message)
    assert (stopped.event or {}).get("interrupted") is True
    assert [row.content for row in rest] == ["no, wait", "you said: no, wait"]


def test_messages_that_interrupt_one_after_the_other_are_answered_together(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    start_worker()
    running = keep_busy(client, journal, "wait pause count 2000 slowly 0.02")
    newer = [client.respond("s", text, overlap="interrupt") for text in ("no", "rather", "this")]
    let_go(journal)

    assert running.get(timeout=30).finish_reason == "interrupted"
    assert [answer.message for answer in replies(newer)] == ["you said: no\nrather\nthis"] * 3
    assert len(read_journal(journal)) == 2


def test_a_turn_that_waits_for_its_next_try_is_interrupted_at_once(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    start_worker(INTURN_RETRY_SECONDS="60")
    sleeping = client.respond("s", "unavailable 9")
    wait_until(lambda: read_journal(journal) and sleeping.status() == "waiting", what="the turn to fail")

    newer = client.respond("s", "never mind", overlap="interrupt")

    assert newer.get(timeout=30).message == "you said: never mind"
    assert (sleeping.get(timeout=30).finish_reason, sleeping.get().message) == ("interrupted", "")
    assert texts(store) == ["unavailable 9", "", "never mind", "you said: never mind"]


def test_a_busy_session_rejects_with_an_error_that_says_what_to_do(
    start_worker: StartWorker, client: Client, broker_url: str, store: PersistenceAdapter, journal: Path
) -> None:
    start_worker()
    running = keep_busy(client, journal)

    with pytest.raises(SessionBusyError, match="try again once they are done") as refused:
        client.respond("s", "now", turn_id="event-1", overlap="reject")
    assert refused.value.retryable
    with Celery(broker=broker_url, backend=broker_url) as bare:
        kwargs = {"session_id": "s", "message": "me too", "overlap": "reject"}
        result = bare.send_task("respond", kwargs=kwargs)
        with pytest.raises(Exception, match="SessionBusyError"):
            result.get(timeout=30)
    let_go(journal)
    running.get(timeout=30)

    accepted = wait_until(lambda: attempt(client, "now"))

    assert accepted is not None
    assert accepted.get(timeout=30).message == "you said: now"
    assert client.respond("s", "now", turn_id="event-1", overlap="reject").get(timeout=30)
    assert texts(store)[2:] == ["now", "you said: now"]


def test_a_bare_send_task_may_choose_its_policy(
    start_worker: StartWorker, client: Client, broker_url: str, fast: dict[str, str]
) -> None:
    start_worker(**fast)
    with Celery(broker=broker_url, backend=broker_url) as bare:
        kwargs = {"session_id": "s", "overlap": "merge", "quiet": 1}
        results: list[AsyncResult[Any]] = [
            bare.send_task("respond", kwargs={**kwargs, "message": text}) for text in ("one", "two")
        ]
        replied = [result.get(timeout=30)["response"]["message"] for result in results]
        with pytest.raises(Exception, match="no such overlap"):
            bare.send_task("respond", kwargs={**kwargs, "message": "x", "overlap": "drop"}).get(timeout=30)

    assert replied[0] == replied[1]
    assert set(replied[0].removeprefix("you said: ").split("\n")) == {"one", "two"}


def test_no_message_is_dropped_whatever_the_mixture_and_whoever_dies(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, fast: dict[str, str]
) -> None:
    chance = random.Random(1)
    workers = [start_worker(concurrency=4, **fast) for _ in range(2)]
    accepted: list[Accepted] = []
    handles: list[TurnHandle] = []
    sent: dict[str, str] = {}
    rejected = 0
    for number in range(160):
        session = f"s{chance.randrange(6)}"
        text = f"message {number} slowly 0.01 {chance.choice(['', 'sleep 0.05'])}"
        policy = chance.choices(["enqueue", "merge", "interrupt", "reject"], [2, 5, 2, 2])[0]
        given: dict[str, Any] = {"overlap": policy, "stream": chance.random() < 0.5}
        if policy == "merge":
            given["quiet"] = chance.choice([0, 0, 0.3])
        try:
            handle = client.respond(session, text, user_id=chance.choice(["ada", "grace"]), **given)
        except SessionBusyError:
            rejected += 1
            continue
        handles.append(handle)
        sent[handle.turn_id] = text
        accepted.append(Accepted(session, handle.turn_id, number, utcnow()))
        if number == 80:
            workers[0].kill("SIGKILL")

    results: list[TurnResult] = [result for _, result in client.collect(handles, timeout=90)]

    verdict = check_store(store, accepted, results)
    assert verdict.ok, verdict.explain()
    assert verdict.committed == len(handles) == len(results)
    stored = [row for number in range(6) for row in rows(store, f"s{number}") if row.role == "user"]
    assert {row.turn_id: row.content for row in stored} == sent
    merged = [row for row in stored if "merged_into" in (row.event or {})]
    stopped = [result for result in results if result.response.finish_reason == "interrupted"]
    print(f"merged {len(merged)}, interrupted {len(stopped)}, rejected {rejected}")
    assert merged, "nothing was merged"
    assert stopped, "nothing was interrupted"
    assert rejected, "nothing was rejected"


def sent_in(store: PersistenceAdapter, session_id: str) -> list[str]:
    """The turns whose replies have arrived."""
    loaded = store.load(session_id)
    outbox = {} if loaded is None else loaded.session.outbox
    return [turn_id for turn_id, delivery in outbox.items() if delivery.state == "sent"]


def attempt(client: Client, text: str) -> TurnHandle | None:
    try:
        return client.respond("s", text, turn_id="event-1", overlap="reject")
    except SessionBusyError:
        return None


def joined(pieces: Iterable[Piece]) -> str:
    text = ""
    for piece in pieces:
        text = piece.text if piece.restarts else text + piece.text
    return text
