"""Slack as far as a bot sees it: requests signed by it, and a strict stand-in for its Web API."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qsl

from slack_sdk.signature import SignatureVerifier

BOT_TOKEN = "xoxb-1-2-three"
SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
PATIENCE = 10.0
"""The most seconds that the server waits for anything."""

_TS = re.compile(r"\d{10}\.\d{6}")
_CHANNEL = re.compile(r"[CDGU][A-Z0-9]+")
_USER = re.compile(r"[UW][A-Z0-9]+")
_UNESCAPED = re.compile(r"[<>]|&(?!(?:amp|lt|gt);)")
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


def signed_headers(
    body: bytes, *, secret: str = SIGNING_SECRET, at: float | None = None, content_type: str = _JSON
) -> dict[str, str]:
    """The headers with which Slack sends `body` at the time `at` (now); names are lower case."""
    timestamp = str(int(time.time() if at is None else at))
    signature = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=body)
    assert signature
    return {
        "content-type": content_type,
        "x-slack-request-timestamp": timestamp,
        "x-slack-signature": signature,
    }


@dataclass(frozen=True)
class Posted:
    """A message as it was sent: `text` is escaped, `ts` is its ID, `fields` is all that was asked."""

    channel: str
    text: str
    thread_ts: str | None
    ts: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class _Failure:
    error: str | None
    status: int
    retry_after: str | None
    body: str | None
    line: Literal["answers", "drops", "hangs"]
    posts: bool


@dataclass
class _Answer:
    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


class SlackStub:
    """Slack's Web API on loopback: `chat.postMessage`, `chat.postEphemeral`, `assistant.threads.setStatus`.

    It refuses what Slack refuses, by Slack's codes, and what a bot that repeats a model's words must not
    send: text that is not escaped, or that Slack is asked to look for names in.

        with SlackStub() as slack:
            ...  # INTURN_SLACK_BASE_URL=slack.url, SLACK_BOT_TOKEN=BOT_TOKEN
            assert [message.text for message in slack.messages] == ["hello"]
    """

    def __init__(self, token: str = BOT_TOKEN) -> None:
        self.token = token
        self.requests: list[str] = []
        """The methods asked for, refused ones among them, in order."""
        self.unknown_channels: set[str] = set()
        """Channels that there are not."""
        self._messages: list[Posted] = []
        self._statuses: list[dict[str, Any]] = []
        self._whispers: list[dict[str, Any]] = []
        self._failures: deque[_Failure] = deque()
        self._lock = threading.Lock()
        self._over = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has left
                    stub._serve(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/"

    @property
    def messages(self) -> list[Posted]:
        """What was posted, in order."""
        with self._lock:
            return list(self._messages)

    @property
    def statuses(self) -> list[dict[str, Any]]:
        """What `assistant.threads.setStatus` was sent, in order."""
        with self._lock:
            return list(self._statuses)

    @property
    def whispers(self) -> list[dict[str, Any]]:
        """What `chat.postEphemeral` was sent, in order."""
        with self._lock:
            return list(self._whispers)

    def fail_next(
        self,
        error: str | None = None,
        *,
        status: int = 200,
        retry_after: float | str | None = None,
        body: str | None = None,
        line: Literal["answers", "drops", "hangs"] = "answers",
        posts: bool = False,
        times: int = 1,
    ) -> None:
        """Let the next request fail, or the next `times`.

        - `fail_next("channel_not_found")`: an error of Slack
        - `fail_next(retry_after=30)`: too many requests, status 429
        - `fail_next(status=502, body="<html>")`: what is between us and Slack answers
        - `fail_next(line="drops")`, `fail_next(line="hangs")`: the request is read, and never answered
        - `posts=True` with any of them: and yet the message is posted
        """
        if retry_after is not None:
            error, status = error or "ratelimited", 429
        wait = None if retry_after is None else str(retry_after)
        failure = _Failure(error, status, wait, body, line, posts)
        with self._lock:
            self._failures.extend([failure] * times)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        method = handler.path.removeprefix("/api/")
        with self._lock:
            self.requests.append(method)
            failure = self._failures.popleft() if self._failures else None
            if failure is None or failure.posts:
                answer = self._answer(method, handler.headers, raw)
        if failure is not None:
            if failure.line == "hangs":
                self._over.wait(PATIENCE)
            if failure.line != "answers":
                return
            answer = _failed(failure)
        encoded = answer.body.encode()
        handler.send_response(answer.status)
        for name, value in {"Content-Type": _JSON, **answer.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(encoded)))
        handler.end_headers()
        handler.wfile.write(encoded)

    def _answer(self, method: str, headers: Any, raw: bytes) -> _Answer:
        kind = str(headers.get("content-type", "")).partition(";")[0].strip().lower()
        if kind not in (_JSON, _FORM):
            return _refused("invalid_post_type")
        try:
            fields = json.loads(raw) if kind == _JSON else dict(parse_qsl(raw.decode()))
        except ValueError:
            return _refused("invalid_json")
        if not isinstance(fields, dict):
            return _refused("json_not_object")
        scheme, _, token = str(headers.get("authorization", "")).partition(" ")
        if not token:
            return _refused("not_authed")
        if scheme != "Bearer" or token != self.token:
            return _refused("invalid_auth")
        if method == "chat.postMessage":
            return self._post(fields)
        if method == "chat.postEphemeral":
            return self._whisper(fields)
        if method == "assistant.threads.setStatus":
            return self._set_status(fields)
        return _refused("unknown_method")

    def _post(self, fields: dict[str, Any]) -> _Answer:
        channel, text, thread_ts = fields.get("channel"), fields.get("text"), fields.get("thread_ts")
        if not self._knows(channel):
            return _refused("channel_not_found")
        if not isinstance(text, str) or not text.strip():
            return _refused("no_text")
        if len(text) > 40_000:
            return _refused("msg_too_long")
        if thread_ts is not None and not (isinstance(thread_ts, str) and _TS.fullmatch(thread_ts)):
            return _refused("invalid_thread_ts")
        if _UNESCAPED.search(text):
            return _refused("stub_text_not_escaped")
        if fields.get("parse") == "full" or fields.get("link_names"):
            return _refused("stub_names_looked_for")
        ts = f"{1_700_000_000 + len(self._messages)}.{len(self._messages):06}"
        self._messages.append(Posted(str(channel), text, thread_ts, ts, fields))
        message = {"type": "message", "text": text, "ts": ts, "bot_id": "B1"}
        return _Answer(200, json.dumps({"ok": True, "channel": channel, "ts": ts, "message": message}))

    def _whisper(self, fields: dict[str, Any]) -> _Answer:
        user, text, thread_ts = fields.get("user"), fields.get("text"), fields.get("thread_ts")
        if not self._knows(fields.get("channel")):
            return _refused("channel_not_found")
        if not (isinstance(user, str) and _USER.fullmatch(user)):
            return _refused("user_not_in_channel")
        if not isinstance(text, str) or not text.strip() or _UNESCAPED.search(text):
            return _refused("stub_text_not_escaped")
        if thread_ts is not None and not (isinstance(thread_ts, str) and _TS.fullmatch(thread_ts)):
            return _refused("invalid_thread_ts")
        self._whispers.append(fields)
        return _Answer(200, json.dumps({"ok": True, "message_ts": "1700000000.000000"}))

    def _set_status(self, fields: dict[str, Any]) -> _Answer:
        if not self._knows(fields.get("channel_id")):
            return _refused("channel_not_found")
        if not _TS.fullmatch(str(fields.get("thread_ts"))):
            return _refused("invalid_thread_ts")
        if not isinstance(fields.get("status"), str):
            return _refused("invalid_arguments")
        self._statuses.append(fields)
        return _Answer(200, json.dumps({"ok": True}))

    def _knows(self, channel: object) -> bool:
        return (
            isinstance(channel, str)
            and _CHANNEL.fullmatch(channel) is not None
            and channel not in self.unknown_channels
        )

    def __enter__(self) -> SlackStub:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _refused(error: str) -> _Answer:
    return _Answer(200, json.dumps({"ok": False, "error": error}))


def _failed(failure: _Failure) -> _Answer:
    body = failure.body
    if body is None:
        body = json.dumps({"ok": False, "error": failure.error}) if failure.error else ""
    headers = {} if failure.retry_after is None else {"Retry-After": failure.retry_after}
    return _Answer(failure.status, body, headers)
