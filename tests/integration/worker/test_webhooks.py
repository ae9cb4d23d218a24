"""Webhooks: `POST /channels/<name>`, from whoever sends whatever; a real Redis behind it, no worker."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_celery import RedisTestBroker
from starlette.testclient import TestClient

from inturn.contract import RespondPayload, SaveSessionPayload, decode_payload
from inturn.persistence import PersistenceAdapter
from inturn.session import create_session
from inturn.turns import Mailbox
from tests.channels import SECRET, Receiver
from tests.integration.worker.conftest import StartWeb, WebHere

Waiting = Callable[[str], list[RespondPayload | SaveSessionPayload]]
HEADERS = {"X-Secret": SECRET}


@pytest.fixture(autouse=True)
def receiver_that_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_RECEIVER", "http://127.0.0.1:1")


@pytest.fixture
def client(here: WebHere) -> TestClient:
    return here(channels="tests.channels:channel")


@pytest.fixture
def waiting(mailbox: Mailbox) -> Waiting:
    """What waits in a session's mailbox, in order."""
    return lambda session_id: [decode_payload(item.payload) for item in mailbox.items(session_id)]


def message(text: object = "hello", **fields: object) -> dict[str, object]:
    return {"id": "e1", "session": "s", "text": text, "to": "me", **fields}


def post(client: TestClient | httpx.Client, *messages: object, **more: object) -> Any:
    return client.post("/channels/recording", json={"messages": messages, **more}, headers=HEADERS)


def test_a_message_is_in_its_mailbox_before_the_webhook_is_answered(
    client: TestClient, waiting: Waiting, mailbox: Mailbox
) -> None:
    answer = post(
        client, message(user="ann", images=["https://example.org/cat.png"]), message("next", id="e2")
    )

    assert (answer.status_code, answer.text) == (202, "2 taken")
    assert answer.headers["content-type"].startswith("text/plain")
    first, second = waiting("s")
    assert isinstance(first, RespondPayload)
    assert (first.message, first.user_id, first.channel) == ("hello", "ann", "recording")
    assert (first.address, first.images) == ({"to": "me"}, ["https://example.org/cat.png"])
    assert isinstance(second, RespondPayload)
    assert second.message == "next"
    assert mailbox.queue("s") == ["s:e1", "s:e2"]


def test_the_same_event_again_adds_nothing_and_is_answered_alike(
    client: TestClient, waiting: Waiting
) -> None:
    answers = [post(client, message()) for _ in range(3)]

    assert {(answer.status_code, answer.text) for answer in answers} == {(202, "1 taken")}
    assert len(waiting("s")) == 1


def test_a_message_that_may_not_begin_a_conversation_goes_on_with_one(
    client: TestClient, waiting: Waiting, store: PersistenceAdapter
) -> None:
    aside = {"begins": False}
    store.commit(create_session("stored"), expected_version=0)

    assert post(client, message("who asked you?", **aside)).status_code == 202
    assert waiting("s") == []
    post(client, message(id="e2"))
    post(client, message("now you are in it", id="e3", **aside))
    post(client, message("and here you were", session="stored", **aside))

    assert [each.message for each in waiting("s") if isinstance(each, RespondPayload)] == [
        "hello",
        "now you are in it",
    ]
    assert len(waiting("stored")) == 1


def test_changes_are_enqueued_before_messages(client: TestClient, waiting: Waiting) -> None:
    change = {"id": "e1:stop", "session": "s", "metadata": {"muted": True}}
    assert post(client, message(), changes=[change]).status_code == 202
    assert post(client, message(), changes=[change]).status_code == 202

    first, second = waiting("s")
    assert isinstance(first, SaveSessionPayload)
    assert first.metadata == {"muted": True}
    assert isinstance(second, RespondPayload)


def test_a_webhook_without_messages_is_answered(client: TestClient, mailbox: Mailbox) -> None:
    assert post(client).text == "0 taken"
    assert list(mailbox.items()) == []


@pytest.mark.parametrize("headers", [{}, {"X-Secret": "wrong"}, {"X-Secret": ""}, {"X-Secret": "s\xe9cret"}])
def test_what_the_platform_has_not_sent_is_refused_and_not_read(
    headers: dict[str, str], client: TestClient, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = client.post("/channels/recording", json={"messages": [message("very private")]}, headers=raw)

    assert answer.status_code == 401
    assert "x-secret" not in answer.text, "why is not for whoever tries to know"
    assert list(mailbox.items()) == []
    assert "'channel': 'recording', 'reason': 'x-secret is wrong', 'event': 'webhook refused'" in caplog.text
    assert "very private" not in caplog.text


def test_a_header_that_comes_twice_does_not_pass_by_its_first_value(client: TestClient) -> None:
    twice = [(b"X-Secret", SECRET.encode()), (b"X-Secret", b"other")]

    assert client.post("/channels/recording", json={"messages": []}, headers=twice).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"messages": 5}',
        b'{"messages": [5]}',
        b'{"messages": [{}]}',
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes, client: TestClient, mailbox: Mailbox) -> None:
    answer = client.post("/channels/recording", content=body, headers=HEADERS)

    assert (answer.status_code, answer.headers["X-Final"]) == (400, "1"), answer.text
    assert list(mailbox.items()) == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"id": "e", "session": "s", "text": "a\\u0000b", "to": "me"}]}',
        b'{"messages": [{"id": "e", "session": "s", "text": "a\\ud800b", "to": "me"}]}',
        b'{"messages": [{"id": "e", "session": "s", "text": "hi", "to": "a\\u0000b"}]}',
        b'{"messages": [{"id": "e", "session": "s", "text": "hi", "to": "a\\ud800b"}]}',
        b'{"messages": [{"id": "e", "session": "", "text": "hi", "to": "me"}]}',
        b'{"messages": [{"id": "e", "session": {"$ne": null}, "text": "hi", "to": "me"}]}',
        b'{"messages": [{"id": ["e"], "session": "s", "text": "hi", "to": "me"}]}',
        b'{"messages": [{"id": "e\\n", "session": "s", "text": "hi", "to": "me"}]}',
        b'{"messages": [{"id": "e", "session": "s", "text": " ", "to": "me"}]}',
        b'{"messages": [{"id": "e", "session": "s", "text": 5, "to": "me"}]}',
        b'{"messages": [{"id": "e", "session": "s", "text": "hi", "to": "me", "images": ["file:///x"]}]}',
        b'{"messages": [{"id": "e", "session": "s", "text": "hi", "to": "me", "user": ""}]}',
    ],
)
def test_what_can_never_be_taken_is_not_asked_for_again(
    body: bytes, client: TestClient, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.post("/channels/recording", content=body, headers=HEADERS)

    assert (answer.status_code, answer.text) == (202, "1 taken")
    assert list(mailbox.items()) == []
    assert "message of a webhook refused" in caplog.text
    assert 'inturn_web_refused_total{reason="invalid-input"} 1.0' in client.get("/metrics").text


def test_the_good_messages_beside_a_bad_one_are_taken(client: TestClient, waiting: Waiting) -> None:
    answer = post(client, message("one"), message(" ", id="e2"), message("three", id="e3"))

    assert answer.status_code == 202
    assert [turn.message for turn in waiting("s") if isinstance(turn, RespondPayload)] == ["one", "three"]


def test_whose_message_is_too_long_is_told_so(
    here: WebHere, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], waiting: Waiting
) -> None:
    with Receiver() as receiver:
        monkeypatch.setenv("TEST_RECEIVER", receiver.url)
        client = here(channels="tests.channels:channel", max_message_chars=10)
        answer = post(client, message("short"), message("a very long one", id="e2"))

        assert answer.status_code == 202
        assert [(sent.to, sent.text.partition(".")[0]) for sent in receiver.requests] == [
            ("me", "Your message is too long: it may have 10 characters")
        ]
    assert len(waiting("s")) == 1
    logged = capfd.readouterr().err
    assert "INTURN_MAX_MESSAGE_CHARS" in logged
    assert "very long" not in logged


def test_a_message_that_is_rejected_is_told_to_its_user_and_not_asked_for_again(
    here: WebHere, monkeypatch: pytest.MonkeyPatch, waiting: Waiting
) -> None:
    with Receiver() as receiver:
        monkeypatch.setenv("TEST_RECEIVER", receiver.url)
        client = here(channels="tests.channels:channel", overlap="reject")
        answers = [post(client, message("one")), post(client, message("two", id="e2"))]

        assert [answer.status_code for answer in answers] == [202, 202]
        (told,) = receiver.requests
        assert told.text.startswith("Your last message is still being answered.")
    assert [turn.message for turn in waiting("s") if isinstance(turn, RespondPayload)] == ["one"]


def test_turns_that_came_by_webhooks_are_counted(client: TestClient) -> None:
    for _ in range(2):
        post(client, message())

    counted = client.get("/metrics").text
    assert 'inturn_web_turns_accepted_total{outcome="new"} 1.0' in counted
    assert 'inturn_web_turns_accepted_total{outcome="known"} 1.0' in counted


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("id", "session", "text", "to", "user", "images"), values),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.lists(messages | values, max_size=3)))
def test_anything_is_taken_or_refused_and_never_an_error(client: TestClient, sent: object) -> None:
    body = sent if isinstance(sent, bytes) else json.dumps({"messages": sent}).encode()

    answer = client.post("/channels/recording", content=body, headers=HEADERS)

    assert answer.status_code in (202, 400), answer.text


@pytest.mark.parametrize(("path", "method", "code"), [("nobody", "POST", 404), ("recording", "GET", 405)])
def test_other_paths_and_methods_are_no_webhooks(
    path: str, method: str, code: int, client: TestClient
) -> None:
    assert client.request(method, f"/channels/{path}", headers=HEADERS).status_code == code


def test_a_body_that_is_too_large_is_refused(client: TestClient, mailbox: Mailbox) -> None:
    answer = post(client, message("x" * 10_001))

    assert (answer.status_code, answer.headers["X-Final"]) == (413, "1")
    assert "10000 bytes" in answer.json()["detail"]
    assert list(mailbox.items()) == []


@pytest.mark.process
def test_a_body_without_an_end_is_cut_off_at_the_limit(start_web: StartWeb) -> None:
    web = start_web(INTURN_CHANNELS="tests.channels:channel", TEST_RECEIVER="http://127.0.0.1:1")
    place = urlsplit(web.url)
    sent = 0
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=20) as connection:
        connection.sendall(
            b"POST /channels/recording HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            + f"X-Secret: {SECRET}\r\n\r\n".encode()
        )
        connection.settimeout(0.05)
        answer = b""
        while not answer and sent < 50_000_000:
            try:
                sent += connection.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
                answer = connection.recv(100)
            except TimeoutError:
                continue
            except ConnectionError:
                break

    assert answer.startswith(b"HTTP/1.1 413")
    assert sent < 1_000_000, "it was read on behind the limit"


def test_a_full_mailbox_is_told_with_a_time_to_come_again(here: WebHere, waiting: Waiting) -> None:
    client = here(channels="tests.channels:channel", max_waiting=1)

    answer = post(client, message("one"), message("two", id="e2"), message("three", session="t"))

    assert (answer.status_code, "Retry-After" in answer.headers) == (429, True)
    assert len(waiting("s")) == 1
    assert waiting("t") == [], "what comes after it is not taken before it"


def test_where_too_many_turns_wait_in_all_the_platform_is_asked_to_send_again(
    here: WebHere, waiting: Waiting
) -> None:
    client = here(channels="tests.channels:channel", max_waiting_total=1, sweep_seconds=1e-9)

    answer = post(client, message("one"), message("two", id="e2", session="t"))

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    assert answer.json()["type"] == "urn:inturn:problem:overloaded"
    assert (len(waiting("s")), waiting("t")) == (1, [])
    assert "inturn_turns_waiting 1.0" in client.get("/metrics").text


def test_while_redis_is_away_the_platform_is_asked_to_send_again(
    client: TestClient, celery_broker: RedisTestBroker, waiting: Waiting
) -> None:
    celery_broker.container.kill("SIGKILL")
    refused = post(client, message())
    celery_broker.container.restart()
    taken = post(client, message())

    assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
    assert taken.status_code == 202
    assert len(waiting("s")) == 1


@pytest.mark.parametrize(
    ("public_url", "url"),
    [
        (None, "http://127.0.0.1/channels/recording?a=b%20c&d="),
        ("https://chat.example.com", "https://chat.example.com/channels/recording?a=b%20c&d="),
        ("https://example.com/chat/", "https://example.com/chat/channels/recording?a=b%20c&d="),
    ],
)
def test_a_channel_sees_the_url_that_the_platform_called(
    public_url: str | None, url: str, here: WebHere, waiting: Waiting
) -> None:
    client = here(channels="tests.channels:channel", public_url=public_url)
    client.post("/channels/recording?a=b%20c&d=", json={"messages": [message()]}, headers=HEADERS)

    [turn] = waiting("s")
    assert turn.metadata == {"url": url}


def test_a_channel_that_fails_after_the_answer_changes_nothing(
    client: TestClient, waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    answer = post(client, message(to="nowhere"))

    assert answer.status_code == 202
    assert len(waiting("s")) == 1
    assert "ValueError" in caplog.text


def test_it_says_which_channels_are_set_up_and_which_are_not(client: TestClient) -> None:
    assert client.get("/readyz").json() == {
        "status": "ok",
        "channels": {"slack": "not set up", "sms": "not set up", "recording": "on"},
    }


@pytest.mark.process
def test_it_says_so_in_its_log_too(start_web: StartWeb) -> None:
    web = start_web(INTURN_CHANNELS="tests.channels:channel", TEST_RECEIVER="http://127.0.0.1:1")

    [line] = [line for line in web.process.logs().decode().splitlines() if "web ready" in line]
    assert "'slack': 'not set up', 'sms': 'not set up', 'recording': 'on'" in line
