"""Replies on their way out: through real workers, to a platform that is slow, away, or breaks off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis

from inturn.client import Client, TurnHandle
from inturn.contract import DELIVERY_QUEUE, DeliveryView
from inturn.embedded.ports import free_port
from inturn.errors import TurnFailedError
from inturn.persistence import PersistenceAdapter, Target
from inturn.session.state import Delivery
from inturn.settings import Settings
from inturn.turns import Deliveries, Mailbox
from inturn.turns.connection import connect
from tests.agents import let_go, read_journal
from tests.channels import Receiver, Sent
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

Say = Callable[..., TurnHandle]
OutboxOf = Callable[[str], dict[str, Delivery]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def worker_env(worker_env: dict[str, str], receiver: Receiver) -> dict[str, str]:
    return {
        **worker_env,
        "INTURN_AGENT": "tests.channels:agent",
        "INTURN_CHANNELS": "tests.channels:channel",
        "TEST_RECEIVER": receiver.url,
    }


@pytest.fixture
def say(client: Client) -> Say:
    """Enqueue a message that came in on the channel, in a session, from a user of the same name."""

    def say(session_id: str, text: str, **options: object) -> TurnHandle:
        return client.respond(session_id, text, channel="recording", address={"to": session_id}, **options)  # type: ignore[arg-type]

    return say


@pytest.fixture
def outbox(store: PersistenceAdapter) -> OutboxOf:
    """The deliveries of a session, by the ends of their turns' IDs."""

    def read(session_id: str) -> dict[str, Delivery]:
        loaded = store.load(session_id)
        found = {} if loaded is None else loaded.session.outbox
        return {turn_id.partition(":")[2]: delivery for turn_id, delivery in found.items()}

    return read


def states(outbox: dict[str, Delivery]) -> dict[str, str]:
    return {turn_id: delivery.state for turn_id, delivery in outbox.items()}


def only(deliveries: list[DeliveryView]) -> DeliveryView:
    [view] = deliveries
    return view


@pytest.mark.parametrize("pool", ["threads", "gevent", "prefork"])
def test_replies_go_out_in_order_and_in_parts(
    pool: str, start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver, client: Client
) -> None:
    start_worker(pool=pool, concurrency=4)
    for number in range(6):
        for session_id in ("a", "b"):
            say(session_id, f"{number} count 9, and then some more words.", turn_id=str(number))

    wait_until(lambda: set(states(outbox("a")).values()) == {"sent"} and len(outbox("a")) == 6, timeout=60)
    wait_until(lambda: set(states(outbox("b")).values()) == {"sent"} and len(outbox("b")) == 6, timeout=60)

    replies = [
        f"you said: {number} count 9, and then some more words. 1 2 3 4 5 6 7 8 9" for number in range(6)
    ]
    for session_id in ("a", "b"):
        texts = receiver.texts(session_id)
        assert " ".join(texts) == " ".join(replies)
        assert len(texts) > 6
        assert max(map(len, texts)) <= 40
    first = outbox("a")["0"]
    assert (first.sent, len(first.ids), first.doubtful) == (3, 3, False)
    assert client.deliveries() == []


def test_what_came_in_without_an_address_is_not_delivered(
    start_worker: StartWorker, client: Client, outbox: OutboxOf, receiver: Receiver, mailbox: Mailbox
) -> None:
    start_worker()
    client.respond("s", "hello", channel="web").get(timeout=30)
    client.respond("s", "hello").get(timeout=30)
    client.save_session("s", data={"plan": "gold"}).get(timeout=30)

    assert outbox("s") == {}
    assert receiver.requests == []
    assert client.deliveries() == []


def test_a_bare_send_task_may_bring_an_address(
    start_worker: StartWorker, broker_url: str, receiver: Receiver
) -> None:
    start_worker()
    with Celery(broker=broker_url, backend=broker_url) as bare:
        message = {"session_id": "s", "message": "hello", "channel": "recording", "address": {"to": "me"}}
        bare.send_task("respond", kwargs=message)
        wait_until(lambda: receiver.texts("me") == ["you said: hello"])

        refused = bare.send_task("respond", kwargs={**message, "channel": None})
        with pytest.raises(Exception, match="give the channel's name"):
            refused.get(timeout=30)


def test_of_a_turn_that_fails_the_fallback_message_is_delivered(
    start_worker: StartWorker, say: Say, receiver: Receiver
) -> None:
    start_worker()
    with pytest.raises(TurnFailedError):
        say("s", "refused").get(timeout=30)

    wait_until(lambda: receiver.texts() == ["Sorry, that did not work."])


def test_of_a_turn_that_is_stopped_what_it_had_said_is_delivered(
    start_worker: StartWorker, say: Say, receiver: Receiver
) -> None:
    start_worker()
    handle = say("s", "slowly 0.02 count 2000", stream=True)
    next(handle.stream(timeout=30))
    handle.cancel()
    reply = handle.get(timeout=30)
    nothing = say("s", "sleep 1")
    nothing.cancel()

    assert reply.finish_reason == "interrupted"
    wait_until(lambda: " ".join(receiver.texts()).startswith(reply.message.strip()))
    assert say("s", "next").get(timeout=30)
    wait_until(lambda: receiver.texts()[-1] == "you said: next")


@pytest.mark.parametrize("word", ["dies-after-commit", "dies-in-parts"])
def test_a_worker_that_dies_before_a_part_is_marked_costs_nothing(
    word: str, start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver, fast: dict[str, str]
) -> None:
    victim = start_worker(**fast)
    say("s", "first", turn_id="0")
    wait_until(lambda: states(outbox("s")) == {"0": "sent"})  # or its death would cut this one off, too
    say("s", word, turn_id="1")
    say("s", "last", turn_id="2")
    wait_until(lambda: victim.container.status == "exited", what="its death")
    start_worker(**fast)

    wait_until(lambda: states(outbox("s")) == {"0": "sent", "1": "sent", "2": "sent"}, timeout=40)
    assert receiver.texts() == ["you said: first", f"you said: {word}", "you said: last"]
    assert not any(delivery.doubtful for delivery in outbox("s").values())


@pytest.mark.parametrize("repeats", ["", "1"], ids=["never repeats", "repeats unknown"])
@pytest.mark.parametrize("word", ["dies-before-sending", "dies-after-sending"])
def test_a_worker_that_dies_with_a_part_in_hand_leaves_a_mark(
    word: str,
    repeats: str,
    start_worker: StartWorker,
    say: Say,
    outbox: OutboxOf,
    receiver: Receiver,
    client: Client,
    fast: dict[str, str],
) -> None:
    victim = start_worker(**fast, TEST_REPEATS=repeats)
    for number, text in enumerate(["first", word, "last"]):
        say("s", text, turn_id=str(number))
    wait_until(lambda: victim.container.status == "exited", what="its death")
    start_worker(**fast, TEST_REPEATS=repeats)

    end = "sent" if repeats else "unknown"
    wait_until(lambda: states(outbox("s")) == {"0": "sent", "1": end, "2": "sent"}, timeout=40)
    copies = (word == "dies-after-sending") + bool(repeats)
    assert receiver.texts() == ["you said: first", *[f"you said: {word}"] * copies, "you said: last"]
    assert outbox("s")["1"].doubtful == bool(repeats)
    view = only(client.deliveries())
    assert (view.turn_id, view.state, view.doubtful, view.channel) == ("s:1", end, bool(repeats), "recording")


def test_a_worker_that_is_killed_while_the_platform_thinks_leaves_a_mark(
    start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver, fast: dict[str, str]
) -> None:
    victim = start_worker(**fast)

    def answer(sent: Sent) -> int:
        if victim.container.status == "running":
            victim.kill("SIGKILL")
        return 200

    receiver.answering = answer
    say("s", "hello", turn_id="1")
    wait_until(lambda: victim.container.status == "exited")
    start_worker(**fast)

    wait_until(lambda: states(outbox("s")) == {"1": "unknown"}, timeout=40)
    assert len(receiver.requests) == 1


def test_a_paused_worker_sends_nothing_that_another_has_sent(
    start_worker: StartWorker,
    say: Say,
    outbox: OutboxOf,
    receiver: Receiver,
    fast: dict[str, str],
    journal: Path,
) -> None:
    paused = start_worker(**fast)
    say("s", "waits-in-parts", turn_id="1")
    wait_until(lambda: outbox("s"), what="the turn's commit")
    wait_until(journal.with_name(f"{journal.name}.waits").exists)
    paused.kill("SIGSTOP")
    start_worker(**fast)
    say("s", "next", turn_id="2")
    wait_until(lambda: states(outbox("s")) == {"1": "sent", "2": "sent"}, timeout=40)

    let_go(journal)
    paused.kill("SIGCONT")
    wait_until(lambda: "lease lost" in paused.logs(), what="the late owner to notice")
    say("s", "after", turn_id="3")
    wait_until(lambda: states(outbox("s"))["3"] == "sent" if "3" in outbox("s") else False)

    assert receiver.texts() == ["you said: waits-in-parts", "you said: next", "you said: after"]


def test_a_platform_that_is_busy_holds_up_one_conversation_and_no_slot(
    start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver, client: Client
) -> None:
    busy = threading.Event()
    receiver.answering = lambda sent: 200 if sent.to != "busy" or busy.is_set() else 2.0
    start_worker(concurrency=1)
    for number in range(3):
        say("busy", f"{number}", turn_id=str(number))
    wait_until(lambda: receiver.requests, timeout=30)
    say("other", "hello", turn_id="1")
    wait_until(lambda: states(outbox("other")) == {"1": "sent"})

    assert receiver.texts() == ["you said: hello"]
    waiting = client.deliveries("busy")
    assert [(view.turn_id, view.state) for view in waiting] == [
        ("busy:0", "waiting"),
        ("busy:1", "waiting"),
        ("busy:2", "waiting"),
    ]
    assert outbox("busy")["0"].error == "too many requests"
    busy.set()
    wait_until(lambda: receiver.texts("busy") == ["you said: 0", "you said: 1", "you said: 2"])
    first, second = [sent.at for sent in receiver.requests if sent.text == "you said: 0"][:2]
    assert second - first >= 2.0, "it was asked again before the time that it wished for"


def test_a_platform_that_never_takes_a_reply_fails_it_and_the_next_goes_out(
    start_worker: StartWorker,
    say: Say,
    outbox: OutboxOf,
    receiver: Receiver,
    client: Client,
    fast: dict[str, str],
) -> None:
    receiver.answering = lambda sent: 0.01 if "busy" in sent.text else 200
    start_worker(**fast, INTURN_DELIVERY_ATTEMPTS="3")
    say("s", "busy", turn_id="1")
    say("s", "next", turn_id="2")

    wait_until(lambda: states(outbox("s")) == {"1": "failed", "2": "sent"}, timeout=40)
    assert len([sent for sent in receiver.requests if "busy" in sent.text]) == 3
    view = only(client.deliveries())
    assert (view.turn_id, view.state, view.doubtful, view.error) == (
        "s:1",
        "failed",
        False,
        "too many requests",
    )


def test_a_platform_that_is_away_is_waited_for(
    start_worker: StartWorker, say: Say, outbox: OutboxOf, fast: dict[str, str]
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    worker = start_worker(**fast, TEST_RECEIVER=nobody)
    say("s", "hello", turn_id="1")
    wait_until(lambda: "delivery will be tried again" in worker.logs(), timeout=30)

    assert states(outbox("s")).keys() == {"1"}
    assert outbox("s")["1"].state in ("waiting", "sending")
    worker.kill("SIGKILL")
    start_worker(**fast)
    wait_until(lambda: states(outbox("s")) == {"1": "sent"}, timeout=40)


def test_a_reply_that_is_refused_fails_and_a_broken_connection_is_unknown(
    start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver, client: Client
) -> None:
    def answer(sent: Sent) -> int | str:
        return 400 if "bad" in sent.text else "drop" if "broken" in sent.text else 200

    receiver.answering = answer
    worker = start_worker()
    for number, text in enumerate(["bad", "a long one, of which the end is broken", "good"]):
        say("s", text, turn_id=str(number))
    wait_until(lambda: states(outbox("s")) == {"0": "failed", "1": "unknown", "2": "sent"})

    assert receiver.texts() == ["you said: a long one,", "you said: good"]
    assert outbox("s")["1"].sent == 1
    assert {view.turn_id: view.error for view in client.deliveries()} == {
        "s:0": "refused with 400",
        "s:1": "the connection broke (RemoteDisconnected)",
    }
    assert "good" not in worker.logs()
    assert "of which" not in worker.logs()


def test_a_channel_that_repeats_sends_again_what_is_unknown_and_marks_it(
    start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver, fast: dict[str, str]
) -> None:
    breaking = iter(["drop", "drop"])
    receiver.answering = lambda sent: next(breaking, 200)
    start_worker(**fast, TEST_REPEATS="1")
    say("s", "hello", turn_id="1")

    wait_until(lambda: states(outbox("s")) == {"1": "sent"}, timeout=30)
    assert outbox("s")["1"].doubtful
    assert len(receiver.requests) == 3


def test_a_reply_that_was_asked_for_again_goes_on_where_it_ended(
    start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver, client: Client
) -> None:
    receiver.answering = lambda sent: "drop" if "broken" in sent.text else 200
    start_worker()
    say("s", "a long one, of which the end is broken", turn_id="1")
    wait_until(lambda: states(outbox("s")) == {"1": "unknown"}, timeout=30)
    assert client.retry_delivery("s", "1")
    wait_until(lambda: outbox("s")["1"].asked and states(outbox("s")) == {"1": "unknown"})
    assert len(receiver.requests) == 3, "one request is one try"

    receiver.answering = lambda sent: 200
    assert client.retry_delivery("s", "s:1")
    wait_until(lambda: states(outbox("s")) == {"1": "sent"})

    assert receiver.texts() == ["you said: a long one,", "of which the end is broken"]
    assert outbox("s")["1"].doubtful
    assert only(client.deliveries()).doubtful
    assert client.retry_delivery("s", "1"), "that is allowed, and changes nothing"
    assert not client.retry_delivery("s", "nothing")
    wait_until(lambda: not [view for view in client.deliveries() if view.state in ("waiting", "sending")])
    assert len(receiver.requests) == 4


def test_a_session_that_is_deleted_meanwhile_gets_nothing_more(
    start_worker: StartWorker, say: Say, receiver: Receiver, client: Client, store: PersistenceAdapter
) -> None:
    gone = threading.Event()

    def answer(sent: Sent) -> int | float:
        return 200 if gone.is_set() else 0.5

    receiver.answering = answer
    worker = start_worker()
    say("s", "hello", turn_id="1")
    say("s", "hello again", turn_id="2").get(timeout=30)
    wait_until(lambda: receiver.requests)
    assert store.delete_sessions([Target("s")]) == ["s"]
    asked = len(receiver.requests)
    gone.set()
    wait_until(lambda: client.deliveries() == [])

    assert receiver.taken == []
    assert len(receiver.requests) <= asked + 1
    assert "delivery dropped" in worker.logs()


def test_two_messages_for_one_delivery_send_it_once(
    start_worker: StartWorker, say: Say, receiver: Receiver, broker_url: str, outbox: OutboxOf
) -> None:
    go_on = threading.Event()

    def answer(sent: Sent) -> int:
        go_on.wait(20)
        return 200

    receiver.answering = answer
    start_worker()
    say("s", "hello", turn_id="1")
    wait_until(lambda: receiver.requests)
    with Celery(broker=broker_url, backend=broker_url) as bare:
        results = [
            bare.send_task("deliver", kwargs={"session_id": "s"}, queue=DELIVERY_QUEUE, ignore_result=False)
            for _ in range(3)
        ]
        time.sleep(1)  # whoever sent twice would do so now
        go_on.set()
    wait_until(lambda: states(outbox("s")) == {"1": "sent"})
    del results

    assert len(receiver.requests) == 1


def test_a_worker_without_the_channel_leaves_it_to_one_that_has_it(
    start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver, fast: dict[str, str]
) -> None:
    without = start_worker(**fast, INTURN_CHANNELS="", INTURN_DELIVERY_ATTEMPTS="2")
    say("s", "hello", turn_id="1")
    wait_until(lambda: without.logs().count("left to a process that has its channel") > 3, timeout=40)

    assert states(outbox("s")) == {"1": "waiting"}
    start_worker(**fast, INTURN_DELIVERY_ATTEMPTS="2")
    wait_until(lambda: states(outbox("s")) == {"1": "sent"}, timeout=60)
    assert receiver.texts() == ["you said: hello"]


def test_a_delivery_disturbs_no_turn_that_runs(
    start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver, journal: Path
) -> None:
    go_on = threading.Event()

    def answer(sent: Sent) -> int:
        go_on.wait(20)
        return 200

    receiver.answering = answer
    start_worker()
    say("s", "first, in two parts: one of them comes now, one then", turn_id="1").get(timeout=30)
    wait_until(lambda: receiver.requests)
    second = say("s", "second sleep 1.5", turn_id="2")
    wait_until(lambda: len(read_journal(journal)) == 2)
    go_on.set()
    wait_until(lambda: outbox("s")["1"].state == "sent")
    assert second.status() == "running"
    second.get(timeout=30)
    wait_until(lambda: states(outbox("s")) == {"1": "sent", "2": "sent"})

    assert len(read_journal(journal)) == 2, "the model was asked again"


def test_where_nothing_goes_out_turns_wait_and_nothing_is_lost(
    start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver, fast: dict[str, str]
) -> None:
    receiver.answering = lambda sent: 0.2
    worker = start_worker(**fast, INTURN_MAX_WAITING="3")
    handles = [say("s", f"{number}", turn_id=str(number)) for number in range(3)]
    assert handles[-1].get(timeout=30)
    handles += [say("s", f"{number}", turn_id=str(number)) for number in range(3, 6)]
    wait_until(lambda: "OutboxFullError" in worker.logs(), timeout=30)

    assert handles[-1].status() == "waiting"
    receiver.answering = lambda sent: 200
    wait_until(lambda: receiver.texts() == [f"you said: {number}" for number in range(6)], timeout=60)
    assert all(handle.get(timeout=30) for handle in handles)


def test_a_message_that_the_broker_lost_is_sent_again(
    start_worker: StartWorker,
    say: Say,
    outbox: OutboxOf,
    receiver: Receiver,
    turn_settings: Settings,
    fast: dict[str, str],
) -> None:
    # As a crash between "offered" and "published" leaves it: the reply is committed, and nobody was told.
    worker = start_worker(**fast, INTURN_CHANNELS="", INTURN_GRACE_SECONDS="1")
    say("s", "hello", turn_id="1").get(timeout=30)
    worker.kill("SIGKILL")
    drivers = turn_settings.model_copy(update={"grace_seconds": 1.0})
    with Redis.from_url(turn_settings.broker) as redis, connect(drivers) as connected:
        redis.delete(*redis.scan_iter("inturn-out:*"), *redis.scan_iter("delivery*"))
        Deliveries(connected, drivers).offer("s", "s:1", "recording")
    start_worker(**fast, INTURN_GRACE_SECONDS="1")

    wait_until(lambda: receiver.texts() == ["you said: hello"], timeout=60)
    wait_until(lambda: states(outbox("s")) == {"1": "sent"})


def test_replies_that_redis_has_lost_go_out_with_the_next(
    start_worker: StartWorker,
    say: Say,
    outbox: OutboxOf,
    receiver: Receiver,
    broker_url: str,
    fast: dict[str, str],
) -> None:
    receiver.answering = lambda sent: 3.0
    start_worker(**fast)
    say("s", "lost", turn_id="1").get(timeout=30)
    wait_until(lambda: outbox("s")["1"].error)
    with Redis.from_url(broker_url) as redis:
        redis.delete(*redis.scan_iter("inturn-out:*"))
    receiver.answering = lambda sent: 200
    say("s", "next", turn_id="2")

    wait_until(lambda: states(outbox("s")) == {"1": "sent", "2": "sent"}, timeout=30)
    assert sorted(receiver.texts()) == ["you said: lost", "you said: next"]


def test_a_session_remembers_the_last_deliveries_only(
    start_worker: StartWorker, say: Say, outbox: OutboxOf, receiver: Receiver
) -> None:
    start_worker()
    for number in range(25):
        say("s", f"{number}", turn_id=str(number))

    wait_until(lambda: receiver.texts() == [f"you said: {number}" for number in range(25)], timeout=60)
    wait_until(lambda: set(states(outbox("s"))) == {str(number) for number in range(5, 25)})
    say("s", "0", turn_id="0").get(timeout=30)
    say("s", "last", turn_id="last")
    wait_until(lambda: receiver.texts()[-1] == "you said: last")
    assert len(receiver.requests) == 26, "a turn that came in again was delivered again"
