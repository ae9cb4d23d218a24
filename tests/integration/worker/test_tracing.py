"""One trace from a webhook to the delivery of its reply, over processes that share nothing but Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inturn.client import Client
from inturn.contract import RespondPayload, decode_payload
from inturn.turns import Mailbox
from tests.channels import SECRET, Receiver
from tests.collector import CollectedSpan, Collector, collecting
from tests.integration.worker.conftest import StartWeb, StartWorker
from tests.waiting import wait_until
from tests.web import Web

pytestmark = pytest.mark.process

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
SAID = "a secret that is nobody's business"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def worker_env(worker_env: dict[str, str], collector: Collector, receiver: Receiver) -> dict[str, str]:
    return {
        **worker_env,
        "INTURN_AGENT": "tests.channels:agent",
        "INTURN_CHANNELS": "tests.channels:channel",
        "TEST_RECEIVER": receiver.url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def post(web: Web, text: str, *, id: str = "e1", trace: str = TRACEPARENT) -> None:
    message = {"id": id, "session": "s", "text": text, "to": "me"}
    headers = {"X-Secret": SECRET, "traceparent": trace}
    assert web.client.post("/channels/recording", json={"messages": [message]}, headers=headers).is_success


def wait_for(collector: Collector, name: str, number: int = 1) -> list[CollectedSpan]:
    wait_until(lambda: len(collector.named(name)) >= number, timeout=60, what=f"{number} spans {name!r}")
    return collector.named(name)


@pytest.mark.parametrize("pool", ["threads", "gevent", "prefork"])
def test_a_trace_goes_from_the_webhook_over_the_mailbox_to_the_delivery(
    pool: str, start_web: StartWeb, start_worker: StartWorker, collector: Collector
) -> None:
    web = start_web()
    start_worker(pool=pool, concurrency=2)
    post(web, SAID)
    wait_for(collector, "deliver")
    spans = {
        name: wait_for(collector, name)[0]
        for name in ("POST /channels/{name}", "enqueue turn", "turn", "load", "chat Obedient", "commit")
    }
    spans["deliver"] = collector.named("deliver")[0]

    assert {span.trace_id for span in spans.values()} == {TRACE}
    parents = {name: span.parent_id for name, span in spans.items()}
    ids = {name: span.span_id for name, span in spans.items()}
    assert parents == {
        "POST /channels/{name}": CALLER,
        "enqueue turn": ids["POST /channels/{name}"],
        "turn": ids["enqueue turn"],
        "load": ids["turn"],
        "chat Obedient": ids["turn"],
        "commit": ids["turn"],
        "deliver": ids["turn"],
    }
    assert [spans[name].kind for name in spans][:3] == ["server", "producer", "consumer"]
    assert (spans["enqueue turn"].service, spans["turn"].service) == ("inturn-web", "inturn-worker")
    about = spans["turn"].attributes
    assert (about["inturn.session.id"], about["inturn.turn.id"]) == ("s", "s:e1")
    chat = spans["chat Obedient"].attributes
    assert chat["gen_ai.operation.name"] == "chat"
    assert chat["gen_ai.request.model"] == "Obedient"
    assert "gen_ai.usage.input_tokens" in chat
    assert not any(span.failed or span.events for span in collector.spans)
    assert SAID.encode() not in collector.bytes


def test_a_turn_that_waited_and_was_merged_into_another_keeps_a_link_to_its_own_trace(
    start_web: StartWeb, start_worker: StartWorker, collector: Collector, mailbox: Mailbox
) -> None:
    other = TRACE[::-1]
    web = start_web(INTURN_OVERLAP="merge")
    post(web, "one")
    post(web, "two", id="e2", trace=f"00-{other}-{CALLER}-01")
    enqueued = {span.trace_id: span.span_id for span in wait_for(collector, "enqueue turn", 2)}
    assert len(mailbox.queue("s")) == 2

    start_worker(INTURN_OVERLAP="merge")
    (turn,) = wait_for(collector, "turn")

    assert (turn.trace_id, turn.parent_id) == (TRACE, enqueued[TRACE])
    assert turn.links == ((other, enqueued[other]),)


def test_each_try_is_a_span_of_the_same_trace_and_says_no_more_of_an_error_than_its_class(
    start_web: StartWeb, start_worker: StartWorker, collector: Collector
) -> None:
    web = start_web()
    start_worker(INTURN_RETRY_SECONDS="0.1", INTURN_SWEEP_SECONDS="0.2")
    post(web, f"bug 1 {SAID}")
    first, second = wait_for(collector, "turn", 2)

    assert {first.trace_id, second.trace_id} == {TRACE}
    assert (first.attributes["inturn.turn.attempt"], first.error, first.failed) == (1, "ValueError", True)
    assert (second.attributes["inturn.turn.attempt"], second.failed) == (2, False)
    chats = wait_for(collector, "chat Obedient", 2)
    assert [chat.error for chat in chats] == ["ValueError", None]
    assert SAID.encode() not in collector.bytes


def test_calls_of_the_model_and_of_tools_are_in_the_turn_also_while_it_streams(
    start_worker: StartWorker, collector: Collector, client: Client
) -> None:
    start_worker(INTURN_AGENT="tests.dear_agents:agent")
    client.respond("s", f"weigh {SAID}", stream=True).get(timeout=60)
    (turn,) = wait_for(collector, "turn")
    first, second = wait_for(collector, "chat ScriptedProvider", 2)
    (tool,) = wait_for(collector, "execute_tool weigh")

    assert {each.parent_id for each in (first, second, tool)} == {turn.span_id}
    assert tool.attributes["gen_ai.tool.name"] == "weigh"
    assert first.attributes["gen_ai.usage.input_tokens"] == 100
    assert second.attributes["gen_ai.usage.output_tokens"] == 20
    assert "inturn.first_token_seconds" in second.attributes
    assert SAID.encode() not in collector.bytes
    assert b"a feather" not in collector.bytes


def test_a_turn_of_a_program_that_traces_nothing_is_a_trace_of_its_own(
    start_worker: StartWorker, collector: Collector, client: Client, mailbox: Mailbox
) -> None:
    turn = client.respond("s", "hello")
    (item,) = mailbox.items("s")
    payload = decode_payload(item.payload)
    assert isinstance(payload, RespondPayload)
    assert "trace" not in item.payload
    start_worker()
    turn.get(timeout=60)

    (span,) = wait_for(collector, "turn")
    assert span.parent_id == ""


def test_asking_a_process_how_it_is_begins_no_trace(start_web: StartWeb, collector: Collector) -> None:
    web = start_web()
    for path in ("/healthz", "/readyz", "/metrics", "/turns/s:1?ticket=some-ticket"):
        web.client.get(path)

    (span,) = wait_for(collector, "GET /turns/{turn_id}")
    assert [each for each in collector.spans if each.trace_id != span.trace_id] == []
    assert b"some-ticket" not in collector.bytes


def test_a_worker_goes_on_while_its_collector_is_away(
    start_worker: StartWorker, client: Client, receiver: Receiver
) -> None:
    start_worker(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")

    assert client.respond("s", "hello").get(timeout=60).message == "you said: hello"
