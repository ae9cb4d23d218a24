"""A turn as server-sent events: from the queue to the reply, cut off anywhere, by many readers at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pytest_celery import RedisTestBroker

from inturn.settings import Settings
from producer import events
from producer.web import create_app
from tests.agents import let_go, reply_to
from tests.integration.worker.conftest import StartWeb, StartWorker, WebHere
from tests.waiting import wait_until
from tests.web import AnyClient, Event, Web, events_in, events_path, follow, served, text_of

pytestmark = pytest.mark.process


def enqueue(client: AnyClient, session_id: str, message: str, *, stream: bool = True) -> str:
    answer = client.post(f"/sessions/{session_id}/turns", json={"message": message, "stream": stream})
    return str(answer.json()["turn_id"])


class Reader:
    """Reads a turn's events one by one; leaves in the middle unless it has come to the end."""

    def __init__(self, url: str, turn_id: str, after: str = "") -> None:
        self._client = httpx.Client(base_url=url, timeout=40)
        request = self._client.build_request("GET", events_path(turn_id), headers={"Last-Event-ID": after})
        self.response = self._client.send(request, stream=True)
        self._events = events_in(self.response.iter_lines())

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def next(self, kind: str) -> Event:
        return next(event for event in self._events if event.kind == kind)

    def leave(self) -> None:
        self.response.close()
        self._client.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


def test_a_turn_is_followed_from_its_place_in_the_queue_to_its_reply(
    web: Web, start_worker: StartWorker, journal: Path
) -> None:
    first = enqueue(web.client, "s", "before it")
    turn_id = enqueue(web.client, "s", "one pause two")
    with Reader(web.url, turn_id) as reader:
        assert reader.response.headers["Content-Type"].startswith("text/event-stream")
        assert reader.response.headers["X-Accel-Buffering"] == "no"
        told = [reader.next("state")]
        assert told[0].data == {"status": "waiting", "ahead": 1}
        start_worker()
        told.append(reader.next("piece"))
        let_go(journal)
        told += reader

    assert text_of(told) == told[-1].data["reply"]["message"] == "you said: one pause two"
    assert told[-1].kind == "done"
    assert told[-1].data == web.client.get(f"/turns/{turn_id}").json()
    assert web.client.get(f"/turns/{first}").json()["status"] == "done"


def test_a_reader_goes_on_behind_any_event(web: Web, start_worker: StartWorker) -> None:
    start_worker(INTURN_RETRY_SECONDS="0.1", INTURN_SWEEP_SECONDS="0.2")
    # The model's stream breaks off twice in the middle, so the reply begins anew: twice, unless a try is over
    # before anything of it was written.
    message = "one two breaks 2 three count 20"
    turn_id = enqueue(web.client, "s", message)
    whole = follow(web.client, turn_id)
    numbered = [event for event in whole if event.kind != "state"]

    assert sum(event.data.get("restarts", False) for event in numbered) in (1, 2)
    assert text_of(whole) == whole[-1].data["reply"]["message"] == reply_to(message)
    for number, event in enumerate(numbered[:-1], 1):
        resumed = follow(web.client, turn_id, after=event.id)
        assert resumed == numbered[number:]
        assert text_of(resumed, before=text_of(numbered[:number])) == reply_to(message)


def test_a_reader_that_is_cut_off_while_text_comes_misses_nothing_and_gets_nothing_twice(
    web: Web, start_worker: StartWorker
) -> None:
    start_worker()
    message = "slowly 0.03 count 60"
    turn_id = enqueue(web.client, "s", message)
    pieces: list[Event] = []
    while not pieces or pieces[-1].kind != "done":
        with Reader(web.url, turn_id, after=pieces[-1].id if pieces else "") as reader:
            for event in reader:
                if event.kind != "state":
                    pieces.append(event)
                    break  # and leave

    assert text_of(pieces) == reply_to(message)
    assert len({event.id for event in pieces}) == len(pieces)
    wait_until(lambda: web.figures()["inturn_web_readers"] == 0)


def test_who_has_the_last_event_is_told_to_stop_asking(web: Web, start_worker: StartWorker) -> None:
    start_worker()
    turn_id = enqueue(web.client, "s", "hello")
    last = follow(web.client, turn_id)[-1]

    again = web.client.get(events_path(turn_id), headers={"Last-Event-ID": last.id})

    assert again.status_code == 204


def test_a_turn_that_is_not_streamed_gives_its_reply_at_its_end(web: Web, start_worker: StartWorker) -> None:
    start_worker()
    turn_id = enqueue(web.client, "s", "hello", stream=False)

    told = [event for event in follow(web.client, turn_id) if event.kind != "state"]

    assert [event.kind for event in told] == ["piece", "done"]
    assert text_of(told) == "you said: hello"
    assert follow(web.client, turn_id, after=told[0].id) == told[1:]


def test_a_stopped_turn_ends_with_what_it_had_said(web: Web, start_worker: StartWorker) -> None:
    start_worker()
    turn_id = enqueue(web.client, "s", "slowly 0.02 count 2000")
    with Reader(web.url, turn_id) as reader:
        told = [reader.next("piece")]
        web.client.delete(f"/turns/{turn_id}")
        told += reader

    assert told[-1].kind == "done"
    assert told[-1].data["reply"]["finish_reason"] == "interrupted"
    assert text_of(told) == told[-1].data["reply"]["message"]


def test_a_failed_turn_and_a_dropped_one_end_with_failed(web: Web, start_worker: StartWorker) -> None:
    dropped = enqueue(web.client, "other", "hello")
    web.client.delete(f"/turns/{dropped}")
    start_worker()
    failed = enqueue(web.client, "s", "refused my secret")

    told = follow(web.client, failed)
    assert told[-1].kind == "failed"
    assert told[-1].data["status"] == "failed"
    assert "secret" not in told[-1].data["error"]
    assert text_of(told) == "Sorry, that did not work."
    assert [(event.kind, event.data["status"]) for event in follow(web.client, dropped)] == [
        ("failed", "cancelled")
    ]


def test_a_turn_that_never_was_is_not_found_and_an_id_that_is_none_is_refused(here: WebHere) -> None:
    client = here()
    client.post("/sessions/s/turns", json={"message": "hello"}, headers={"Idempotency-Key": "1"})

    assert client.get("/turns/s:nothing/events").status_code == 404
    assert client.get("/turns/s:1/events", headers={"Last-Event-ID": "1; DROP"}).status_code == 422


def test_a_reader_that_goes_away_leaves_nothing_behind(web: Web) -> None:
    turn_id = enqueue(web.client, "s", "nobody takes it")
    readers = [Reader(web.url, turn_id) for _ in range(5)]
    for reader in readers:
        reader.next("state")
    assert web.figures()["inturn_web_readers"] == 5

    for reader in readers:
        reader.leave()

    wait_until(lambda: web.figures()["inturn_web_readers"] == 0)


def test_a_quiet_stream_says_that_it_is_alive_and_ends_in_time(
    turn_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(events, "LONGEST_STREAM", 1.0)
    with served(create_app(turn_settings)) as url, httpx.Client(base_url=url) as client:
        turn_id = enqueue(client, "s", "nobody takes it")
        with client.stream("GET", events_path(turn_id)) as stream:
            lines = list(stream.iter_lines())

    assert lines.count(": ping") >= 3
    assert "retry: 1000" in lines
    assert [event.kind for event in events_in(lines)] == ["state"]


def test_a_server_that_is_told_to_stop_lets_its_readers_go_and_another_goes_on(
    start_web: StartWeb, start_worker: StartWorker, journal: Path
) -> None:
    start_worker()
    first, second = start_web(), start_web()
    turn_id = enqueue(first.client, "s", "one pause two")
    with Reader(first.url, turn_id) as reader:
        told = [reader.next("piece")]
        first.process.kill("SIGTERM")
        told += [event for event in reader if event.kind != "state"]
    wait_until(lambda: first.process.status == "exited", timeout=10)
    let_go(journal)

    told += follow(second.client, turn_id, after=told[-1].id)

    assert text_of(told) == "you said: one pause two"


def test_readers_wait_while_redis_is_away(
    web: Web, start_worker: StartWorker, celery_broker: RedisTestBroker, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(**fast)
    turn_id = enqueue(web.client, "s", "one pause two")
    with Reader(web.url, turn_id) as reader:
        told = [reader.next("piece")]
        time.sleep(1.2)  # what Redis has written to its file by now is there after a crash
        celery_broker.container.kill("SIGKILL")
        wait_until(lambda: b"turns cannot be watched" in web.process.logs())
        celery_broker.container.restart()
        let_go(journal)
        told += reader

    assert told[-1].kind == "done"
    assert text_of(told) == "you said: one pause two"


def test_two_hundred_readers_cost_few_threads_and_little_memory_and_hold_nobody_up(
    web: Web, start_worker: StartWorker, journal: Path
) -> None:
    start_worker(concurrency=20)
    turn_ids = [enqueue(web.client, f"s{number}", "one pause two count 30") for number in range(20)]
    web.client.get("/sessions/s0")
    before = web.memory()
    everybody_reads = asyncio.Event()
    reading = 0

    async def read(client: httpx.AsyncClient, turn_id: str) -> str:
        nonlocal reading
        lines: list[str] = []
        async with client.stream("GET", events_path(turn_id)) as stream:
            async for line in stream.aiter_lines():
                lines.append(line)
                if line == "event: piece" and "event: piece" not in lines[:-1]:
                    reading += 1
                    if reading == 200:
                        everybody_reads.set()
        return text_of(events_in(lines))

    async def read_all() -> tuple[list[str], dict[str, int], list[int]]:
        limits = httpx.Limits(max_connections=220)
        async with httpx.AsyncClient(base_url=web.url, timeout=60, limits=limits) as client:
            readers = [asyncio.create_task(read(client, turn_ids[number % 20])) for number in range(200)]
            await asyncio.wait_for(everybody_reads.wait(), 60)
            assert web.figures()["inturn_web_readers"] == 200
            # Others are served meanwhile, more of them than there are threads for readers.
            asked = [client.get("/sessions/s0") for _ in range(100)]
            answers = [answer.status_code for answer in await asyncio.gather(*asked)]
            during = web.memory()
            let_go(journal)
            return [await reader for reader in readers], during, answers

    texts, during, answers = asyncio.run(read_all())
    print(f"200 readers: {before} -> {during}")

    assert set(texts) == {reply_to("one pause two count 30")}
    assert answers == [200] * 100
    # The handlers' own threads, of which there are 40 at most, and one that looks.
    assert during["threads"] - before["threads"] <= 41
    assert during["kilobytes"] - before["kilobytes"] < 40_000
    wait_until(lambda: web.figures()["inturn_web_readers"] == 0)


def test_where_too_many_read_a_reader_is_refused_and_a_request_does_not_wait(
    here: WebHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.watcher.MOST_WATCHES", 0)
    client = here()

    accepted = client.post("/sessions/s/turns", json={"message": "hello"}, headers={"Prefer": "wait=20"})
    refused = client.get(events_path(accepted.json()["turn_id"]))

    assert accepted.status_code == 202
    assert "Preference-Applied" not in accepted.headers
    assert refused.status_code == 503
    assert "Retry-After" in refused.headers
