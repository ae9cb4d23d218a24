"""Replies read while they are written, and stopped: through real workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis

from inturn.client import Client
from inturn.contract import Piece
from inturn.errors import MailboxUnavailableError, TurnFailedError
from inturn.ids import create_turn_id
from inturn.persistence import MessageQuery, PersistenceAdapter
from inturn.session.state import Message
from inturn.turns import Mailbox
from tests.agents import let_go, read_journal, reply_to
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

POOLS = ["threads", "gevent", "prefork"]


def joined(pieces: Iterable[Piece]) -> str:
    """The text since the last restart."""
    text = ""
    for piece in pieces:
        text = piece.text if piece.restarts else text + piece.text
    return text


def note(pieces: list[Piece], stream: Iterable[Piece]) -> None:
    """Note the pieces as they come, so that those before an error are there."""
    for piece in stream:
        pieces.append(piece)


def said(store: PersistenceAdapter, session_id: str) -> list[Message]:
    """What stands in the history."""
    return list(store.find_messages(MessageQuery(session_id=session_id, limit=1000)).items)


@pytest.mark.parametrize("pool", POOLS)
def test_text_is_read_while_the_turn_runs(
    pool: str, start_worker: StartWorker, client: Client, journal: Path
) -> None:
    start_worker(pool=pool, concurrency=2)
    handle = client.respond("s", "one pause two", stream=True)
    reader = handle.stream(timeout=30)
    before = [next(reader)]

    assert handle.status() == "running"
    assert "you said: one pause two".startswith(before[0].text)
    let_go(journal)
    pieces = [*before, *reader]

    assert joined(pieces) == handle.get(timeout=30).message == "you said: one pause two"
    assert not any(piece.restarts for piece in pieces)
    assert handle.status() == "done"


def test_the_text_before_a_pause_is_read_to_its_last_word(
    start_worker: StartWorker, client: Client, journal: Path
) -> None:
    start_worker()
    handle = client.respond("s", "let me look that up pause found", stream=True)
    reader = handle.stream(timeout=30)
    text = ""
    while text != "you said: let me look that up ":
        text += next(reader).text
    assert handle.status() == "running"
    let_go(journal)

    assert text + joined(reader) == handle.get(timeout=30).message


@pytest.mark.parametrize("pool", POOLS)
def test_the_reader_of_a_killed_workers_reply_gets_it_anew_and_whole(
    pool: str,
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    journal: Path,
    fast: dict[str, str],
) -> None:
    victim = start_worker(pool=pool, concurrency=2, **fast)
    handle = client.respond("s", "one pause two count 50", stream=True)
    reader = handle.stream(timeout=60)
    before = [next(reader)]
    victim.kill("SIGKILL")
    let_go(journal)
    start_worker(pool=pool, concurrency=2, **fast)

    after = list(reader)

    assert any(piece.restarts for piece in after)
    assert joined([*before, *after]) == handle.get(timeout=30).message == reply_to("one pause two count 50")
    assert [message.content for message in said(store, "s")] == [
        "one pause two count 50",
        reply_to("one pause two count 50"),
    ]
    with Client(client.settings) as another:
        resumed = list(another.stream(handle.turn_id, after=before[-1].id))
    assert joined([*before, *resumed]) == joined(after)


def test_what_a_paused_worker_says_late_reaches_no_reader(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, fast: dict[str, str]
) -> None:
    paused = start_worker(**fast)
    message = "slowly 0.05 count 60"
    handle = client.respond("s", message, stream=True)
    reader = handle.stream(timeout=60)
    pieces = [next(reader)]
    paused.kill("SIGSTOP")
    start_worker(**fast)
    pieces.append(next(piece for piece in reader if piece.restarts))  # somebody else has taken over
    paused.kill("SIGCONT")
    wait_until(lambda: "LeaseLostError" in paused.logs(), what="the late owner to give up")
    pieces.extend(reader)

    assert joined(pieces) == handle.get(timeout=30).message == reply_to(message)
    assert sum(piece.restarts for piece in pieces) == 1
    assert [line.content for line in said(store, "s")] == [message, reply_to(message)]


@pytest.mark.parametrize("pool", POOLS)
def test_a_turn_cancelled_in_mid_stream_ends_with_what_it_had_said(
    pool: str, start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    # No heartbeat comes in time to tell, and the whole reply would take 40 seconds.
    start_worker(pool=pool, concurrency=2, INTURN_LEASE_SECONDS="120", INTURN_RENEW_SECONDS="60")
    message = "slowly 0.02 count 2000"
    handle = client.respond("s", message, stream=True)
    following = client.respond("s", "and now?", stream=True)
    reader = handle.stream(timeout=30)
    pieces = list(itertools.islice(reader, 3))

    assert handle.cancel() == "signalled"
    pieces.extend(reader)
    reply = handle.get(timeout=20)

    assert reply.finish_reason == "interrupted"
    assert reply.message == joined(pieces)
    assert reply_to(message).startswith(reply.message)
    assert 0 < len(reply.message) < len(reply_to(message))
    assert handle.status() == "done"
    assert joined(following.stream(timeout=30)) == "you said: and now?"
    asked, answered, *_ = said(store, "s")
    assert (asked.content, answered.content) == (message, reply.message)
    assert (answered.event or {}).get("interrupted") is True


def test_a_cancellation_outlives_the_worker_that_was_to_see_it(
    start_worker: StartWorker, client: Client, journal: Path, fast: dict[str, str]
) -> None:
    victim = start_worker(**fast)
    handle = client.respond("s", "long sleep 30")
    wait_until(lambda: read_journal(journal), what="the turn to begin")
    assert handle.cancel() == "signalled"
    victim.kill("SIGKILL")
    start_worker(**fast)

    reply = handle.get(timeout=30)

    assert (reply.finish_reason, reply.message) == ("interrupted", "")
    assert len(read_journal(journal)) == 1, "the model was asked again"


def test_a_stream_that_breaks_off_is_tried_again_and_begins_anew(
    start_worker: StartWorker, client: Client, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(**fast)
    handle = client.respond("s", "one pause two breaks 1", stream=True)
    reader = handle.stream(timeout=30)
    pieces = [next(reader)]
    let_go(journal)
    pieces.extend(reader)

    assert [piece.restarts for piece in pieces].count(True) == 1
    assert joined(pieces) == handle.get(timeout=30).message


def test_of_a_turn_that_fails_the_fallback_message_is_read_before_the_error(
    start_worker: StartWorker, client: Client, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(**fast, INTURN_MAX_ATTEMPTS="2")
    handle = client.respond("s", "one pause two breaks 9", stream=True)
    reader = handle.stream(timeout=30)
    pieces = [next(reader)]
    let_go(journal)

    with pytest.raises(TurnFailedError):
        note(pieces, reader)

    assert joined(pieces) == "Sorry, that did not work."
    assert pieces[-1].restarts
    assert client.respond("s", "next", stream=True).get(timeout=30).message == "you said: next"


def test_of_a_turn_that_kills_its_process_the_fallback_message_is_read(
    start_worker: StartWorker, client: Client, fast: dict[str, str]
) -> None:
    start_worker(pool="prefork", concurrency=2, **fast, INTURN_MAX_ATTEMPTS="1")
    handle = client.respond("s", "die 9", stream=True)
    pieces: list[Piece] = []

    with pytest.raises(TurnFailedError):
        note(pieces, handle.stream(timeout=60))

    assert [piece.text for piece in pieces] == ["Sorry, that did not work."]


def test_two_readers_get_the_same(start_worker: StartWorker, client: Client) -> None:
    start_worker()
    handle = client.respond("s", "count 30 slowly 0.01", stream=True)

    with Client(client.settings) as another:
        readers = zip(handle.stream(timeout=30), another.stream(handle.turn_id, timeout=30), strict=True)
        pieces = [one for one, other in readers if one == other]

    assert joined(pieces) == handle.get(timeout=30).message == reply_to("count 30 slowly 0.01")


def test_another_client_goes_on_exactly_behind_any_piece(start_worker: StartWorker, client: Client) -> None:
    start_worker()
    handle = client.respond("s", "count 30 slowly 0.02", stream=True)
    text, after = "", ""
    for _ in range(1000):
        with Client(client.settings) as another:
            piece = next(iter(another.stream(handle.turn_id, after=after, timeout=30)), None)
        if piece is None:
            break
        assert not piece.restarts
        text, after = text + piece.text, piece.id

    assert text == handle.get(timeout=30).message


def test_a_turn_that_is_not_streamed_is_read_whole_at_its_end(
    start_worker: StartWorker, client: Client, broker_url: str
) -> None:
    start_worker()
    handle = client.respond("s", "hello")
    saved = client.save_session("s", data={"plan": "gold"})

    assert list(handle.stream(timeout=30)) == [Piece("you said: hello", id="end")]
    assert list(saved.stream(timeout=30)) == []
    with Redis.from_url(broker_url) as redis:
        assert list(redis.scan_iter("*:s:*")) == [], "it costs nothing"


def test_a_turn_that_was_committed_before_is_read_from_the_store(
    start_worker: StartWorker, client: Client, mailbox: Mailbox, broker_url: str, journal: Path
) -> None:
    start_worker()
    first = client.respond("s", "hello", turn_id="event-1", stream=True)
    assert joined(first.stream(timeout=30)) == "you said: hello"
    with Redis.from_url(broker_url) as redis:
        wait_until(lambda: not mailbox.waiting(["s"]), what="the session to be idle")
        redis.delete(*redis.scan_iter("inturn:*"), f"celery-task-meta-{first.turn_id}")
    again = client.respond("s", "hello", turn_id="event-1", stream=True)
    [piece] = again.stream(timeout=30)

    assert again.accepted
    assert piece.text == "you said: hello"
    assert piece.id != "end", "the stream had it"
    assert len(read_journal(journal)) == 1


def test_a_bare_send_task_may_be_streamed_and_show_images(
    start_worker: StartWorker, client: Client, broker_url: str, store: PersistenceAdapter
) -> None:
    start_worker()
    turn_id = create_turn_id("s")
    image = "https://example.org/table.png"
    with Celery(broker=broker_url, backend=broker_url) as bare:
        kwargs = {"session_id": "s", "message": "count 3", "stream": True, "images": [image]}
        bare.send_task("respond", kwargs=kwargs, task_id=turn_id)
        refused = bare.send_task("respond", kwargs={**kwargs, "images": ["file:///etc/passwd"]})

        pieces = list(client.stream(turn_id, timeout=30))
        with pytest.raises(Exception, match="https: URL"):
            refused.get(timeout=30)

    assert joined(pieces) == reply_to("count 3")
    assert pieces[0].id != "end"
    asked = said(store, "s")[0]
    assert (asked.event or {})["images"] == [image]


def test_a_redis_that_restarts_in_mid_stream_costs_a_reader_no_text(
    start_worker: StartWorker, client: Client, celery_broker: object, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(**fast)
    handle = client.respond("s", "one pause two count 50 slowly 0.01", stream=True)
    pieces = [next(iter(handle.stream(timeout=30)))]
    celery_broker.restart()  # type: ignore[attr-defined]
    let_go(journal)

    def read_on() -> bool:
        try:
            note(pieces, handle.stream(after=pieces[-1].id, timeout=60))
        except MailboxUnavailableError:
            return False
        return True

    wait_until(read_on, timeout=60)

    assert joined(pieces) == handle.get(timeout=30).message
