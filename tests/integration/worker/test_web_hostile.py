"""What strangers may send to the web application, and what they get: an answer, never a 500, never a hang."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from starlette.testclient import TestClient

from tests.integration.worker.conftest import WebHere
from tests.web import Web

pytestmark = pytest.mark.process

TURNS = "/sessions/s/turns"
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture
def client(here: WebHere) -> TestClient:
    return here()


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", 422),
            (b"{", 400),
            (b'{"message": "a', 400),
            (b"\xff\xfe\x00", 400),
            (DEEP, 400),
            (b'{"message": ' + DEEP + b"}", 400),
            (b"[]", 422),
            (b"null", 422),
            (b'"message"', 422),
            (b"1" * 5000, 400),
            (b'{"message": NaN}', 422),
            (b'{"message": "\\u0000"}', 422),
            (b'{"message": "\\ud800"}', 422),
            (b'{"message": "hello", "\\ud800": 1}', 422),
            (b'{"message": "hello", "user_id": "\\ud800"}', 422),
            (b'{"message": "hello", "images": ["https://\\ud800"]}', 422),
            (b'{"message": "hello", "user_id": {"$ne": null}}', 422),
            (b'{"message": "hello", "stream": 1}', 422),
            (b'{"message": "hello", "message": 2}', 422),
        ],
    )
    def test_what_cannot_be_a_message_is_refused(self, client: TestClient, body: bytes, code: int) -> None:
        refused = client.post(TURNS, content=body, headers={"Content-Type": "application/json"})

        assert refused.status_code == code
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert json.loads(refused.content)["status"] == code

    @pytest.mark.parametrize(
        "content_type",
        [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "application/xml",
            "x",
            "",
        ],
    )
    def test_what_does_not_say_that_it_is_json_is_refused(
        self, client: TestClient, content_type: str
    ) -> None:
        refused = client.post(TURNS, content=b'{"message": "hello"}', headers={"Content-Type": content_type})

        assert refused.status_code == 415

    def test_an_error_does_not_repeat_what_was_sent(self, client: TestClient) -> None:
        said = "what nobody may know"
        for body in ({"mesage": said}, {said: 1}, {"message": [said]}, {"message": said, "stream": said}):
            refused = client.post(TURNS, json=body)
            assert refused.status_code == 422
            assert "nobody" not in refused.text


class TestHeaders:
    @pytest.mark.parametrize(
        "key", [b"x" * 300, b"a\xff\xfe", b"../../etc", b"s:1", b"other:1", b"'; DROP TABLE", b"%00", b"a b"]
    )
    def test_a_strange_key_names_a_turn_of_its_session_or_is_refused(
        self, client: TestClient, key: bytes
    ) -> None:
        answer = client.post(TURNS, json={"message": "hello"}, headers={b"Idempotency-Key": key})

        assert answer.status_code in (202, 422)
        if answer.status_code == 202:
            assert answer.json()["turn_id"].startswith("s:")
            assert client.get(answer.headers["Location"]).json()["turn_id"] == answer.json()["turn_id"]

    @pytest.mark.parametrize(
        "prefer", ["wait=", "wait=-1", "wait=x", "wait=0", "await=5", "\u0663", "wait=\u00b2"]
    )
    def test_a_wish_that_is_none_is_ignored(self, client: TestClient, prefer: str) -> None:
        headers = {"Prefer": prefer.encode("utf-8", "replace")}
        assert client.post(TURNS, json={"message": "hello"}, headers=headers).status_code == 202  # type: ignore[arg-type]

    def test_a_method_or_path_that_there_is_not_is_answered_as_any_problem(self, client: TestClient) -> None:
        for method, path, code in [
            ("PUT", TURNS, 405),
            ("BREW", TURNS, 405),
            ("GET", "/nothing", 404),
            ("GET", TURNS + "/", 404),
            ("GET", "/sessions/a/b", 404),
        ]:
            refused = client.request(method, path)
            assert refused.status_code == code
            assert refused.headers["Content-Type"] == "application/problem+json"


class TestPaths:
    def test_a_session_may_have_a_strange_name(self, web: Web) -> None:
        names = [
            "..%2F..%2Fetc%2Fpasswd",
            "%2E%2E",
            "a%2Fb",
            "%E2%82%AC",
            "'%20OR%201=1",
            "%25",
            "a:b",
            "*",
            "{s}",
        ]
        for name in names:
            answer = _raw(web.url, _request("POST", f"/sessions/{name}/turns", b'{"message": "hello"}'))
            assert answer.status == 202, name

            shown = _raw(web.url, _request("GET", f"/sessions/{name}"))
            assert shown.json["session_id"] == answer.json["session_id"] == unquote(name)

    @pytest.mark.parametrize(
        "session_id", ["%00", "%0A", "%ED%A0%80", "%FF", "%C0%AE", "a%0D%0Ab", "%E2%80%A8", "x" * 256]
    )
    def test_a_name_that_no_session_may_have_is_refused(self, client: TestClient, session_id: str) -> None:
        assert client.get(f"/sessions/{session_id}").status_code == 422
        assert client.get(f"/turns/{session_id}%3A1").status_code == 422


class TestSizes:
    """Against the process: what matters is what is read from the socket."""

    def test_a_body_that_says_it_is_too_large_is_refused_unread(self, web: Web) -> None:
        head = f"POST {TURNS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        refused = _raw(web.url, f"{head}Content-Length: 10000000000\r\n\r\n".encode())

        assert refused.status == 413
        assert refused.json["type"] == "urn:inturn:problem:content-too-large"

    def test_a_body_that_does_not_say_how_large_it_is_is_read_no_further_than_the_limit(
        self, web: Web
    ) -> None:
        sent = 0

        def chunks() -> Any:
            nonlocal sent
            yield b'{"message": "'
            for _ in range(1000):
                sent += 100_000
                yield b"x" * 100_000
            yield b'"}'

        headers = {"Content-Type": "application/json"}
        refused = None
        with contextlib.suppress(httpx.TransportError):  # cut off while it sent, it may not have the answer
            refused = web.client.post(TURNS, content=chunks(), headers=headers)

        assert refused is None or refused.status_code == 413
        assert sent < 100_000_000
        assert web.memory()["kilobytes"] < 250_000
        assert web.client.get("/healthz").status_code == 200
        assert web.figures()['inturn_web_refused_total{reason="content-too-large"}'] == 1

    def test_ten_megabytes_are_too_many(self, client: TestClient) -> None:
        refused = client.post(TURNS, json={"message": "x" * 10_000_000})

        assert refused.status_code == 413
        assert refused.headers["Content-Type"] == "application/problem+json"

    def test_the_largest_message_passes_however_it_is_encoded(self, client: TestClient) -> None:
        body = json.dumps({"message": "\U0001f600" * 16_000 + "é" * 16_000}).encode()
        headers = {"Content-Type": "application/json"}

        assert client.post(TURNS, content=body, headers=headers).status_code == 202


def test_a_connection_goes_on_after_a_refusal(web: Web) -> None:
    bad = _request("POST", TURNS, b"{").replace(b"Connection: close\r\n", b"")
    received = _raw(web.url, bad + _request("GET", "/healthz"))

    assert received.status == 400
    assert received.body.endswith(b'{"status":"ok"}')


def test_garbage_on_the_wire_ends_with_its_connection(web: Web) -> None:
    for garbage in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /sessions/\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /sessions/s HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET /sessions/s HTTP/1.1\r\n\r\n",
        b"POST /sessions/s/turns HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /sessions/s/turns HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ):
        answer = _raw(web.url, garbage)
        assert answer.status is None or 200 <= answer.status < 500, (garbage, answer)

    assert web.client.get("/healthz").status_code == 200
    assert b"Traceback" not in web.process.logs()


class Answer:
    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ")[1]) if head.startswith(b"HTTP/") else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.body!r}>"


def _request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _raw(url: str, data: bytes) -> Answer:
    """Send just these bytes; gives what comes until the connection ends, or nothing more does."""
    address = urlsplit(url)
    received = b""
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=3) as connection:
        connection.sendall(data)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := connection.recv(65_536):
                received += part
    return Answer(received)
