"""A channel for tests of deliveries, and the platform at its other end: a real HTTP server on the loopback.

What the platform answers is a test's to say. What goes wrong in the worker is written in the text, a word
that counts once: `dies-after-commit` kills the process between the turn's commit and its delivery,
`dies-in-parts` before a part is marked, `dies-before-sending` and `dies-after-sending` right there;
`waits-in-parts` waits until `tests.agents.let_go` is called.
"""

from __future__ import annotations

import hmac
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from inturn.agent import Agent, Hooks
from inturn.channels import Answer, Change, Channel, Incoming, Limits, Received, Request
from inturn.contract import Response
from inturn.errors import (
    DeliveryRefusedError,
    DeliveryUnavailableError,
    DeliveryUnknownError,
    ForgedRequestError,
    InvalidInputError,
)
from inturn.settings import Settings
from tests.agents import Obedient
from tests.waiting import wait_until

SECRET = "s3cret"


class RecordingChannel(Channel):
    """Sends to a receiver."""

    name: ClassVar[str] = "recording"
    limits: ClassVar[Limits] = Limits(text=40, body=10_000)
    final: ClassVar[Mapping[str, str]] = {"X-Final": "1"}

    def __init__(self, url: str, *, journal: str = os.devnull) -> None:
        self._url = urlsplit(url)
        self._journal = journal

    def verify(self, request: Request) -> None:
        """The secret must be in a header."""
        if not hmac.compare_digest(request.headers.get("x-secret", "").encode(), SECRET.encode()):
            raise ForgedRequestError("x-secret is wrong")

    def receive(self, request: Request) -> Received:
        """`{"messages": [{"id", "session", "text", "to"}]}`, perhaps with `changes`; answers their number."""
        webhook = request.json()
        messages, changes = webhook.get("messages"), webhook.get("changes", [])
        for each in (messages, changes):
            if not isinstance(each, list) or not all(isinstance(item, dict) for item in each):
                raise InvalidInputError("messages and changes must be lists of objects")
        try:
            asked = [
                Change(session_id=each["session"], turn_id=each["id"], metadata=each["metadata"])
                for each in changes
            ]
            found = [
                Incoming(
                    session_id=each["session"],
                    message=each["text"],
                    turn_id=each["id"],
                    address={"to": each["to"]} if "to" in each else {},
                    user_id=each.get("user"),
                    images=each.get("images", ()),
                    metadata={"url": request.url},
                    begins=each.get("begins", True),
                )
                for each in messages or ()
            ]
        except KeyError as error:
            raise InvalidInputError(f"a message lacks {error}") from None
        return Received(found, Answer(202, f"{len(found)} taken"), asked)

    def accepted(self, address: Mapping[str, Any]) -> None:
        """Raises for the address `nowhere`."""
        if address["to"] == "nowhere":
            raise ValueError("an error of the channel's own")

    def refused(self, message: Incoming, words: str) -> None:
        """Send the words, if there is where to."""
        if message.address:
            self.send(message.address, words)

    def parts(self, text: str) -> list[str]:
        """As every channel, unless the text says otherwise."""
        if "waits-in-parts" in text and self._first_time("waits"):
            wait_until(Path(f"{self._journal}.go").exists, timeout=60)
        self._perhaps_die("dies-in-parts", text)
        return super().parts(text)

    def send(self, address: Mapping[str, Any], text: str) -> str:
        """POST it; the answer's status says what became of it."""
        self._perhaps_die("dies-before-sending", text)
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=20)
        try:
            connection.connect()
        except OSError as error:
            raise DeliveryUnavailableError(f"no connection ({type(error).__name__})") from None
        try:
            connection.request("POST", "/", json.dumps({"to": address["to"], "text": text}))
            answer = connection.getresponse()
            body = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryUnknownError(f"the connection broke ({type(error).__name__})") from None
        finally:
            connection.close()
        self._perhaps_die("dies-after-sending", text)
        if answer.status == 429:
            raise DeliveryUnavailableError(
                "too many requests", retry_after=float(answer.headers["Retry-After"])
            )
        if answer.status != 200:
            raise DeliveryRefusedError(f"refused with {answer.status}")
        return body

    def _perhaps_die(self, word: str, text: str) -> None:
        if word in text and self._first_time(word):
            os.kill(os.getpid(), signal.SIGKILL)

    def _first_time(self, word: str) -> bool:
        return _first_time(self._journal, word)


class RepeatingChannel(RecordingChannel):
    """The same, and what is unknown is sent again."""

    repeats_unknown: ClassVar[bool] = True


def channel(settings: Settings) -> RecordingChannel:
    """The channel to the receiver that `TEST_RECEIVER` names; with `TEST_REPEATS` it repeats."""
    made = RepeatingChannel if os.environ.get("TEST_REPEATS") else RecordingChannel
    return made(os.environ["TEST_RECEIVER"], journal=os.environ.get("TEST_JOURNAL", os.devnull))


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as the receiver read it: `at` is of the machine's monotonic clock."""

    to: str
    text: str
    at: float


Answering = Callable[[Sent], int | float | str]
"""What the receiver answers: a status; a float: 429 with so many seconds in `Retry-After`; `drop`: it closes
the connection without an answer."""


class Receiver:
    """The platform. `requests` is all that came in, `taken` what it answered 200; it takes all by default."""

    def __init__(self, answering: Answering = lambda sent: 200) -> None:
        self.answering = answering
        self.requests: list[Sent] = []
        self.taken: list[Sent] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def texts(self, to: str | None = None) -> list[str]:
        """What was taken, in order."""
        return [sent.text for sent in self.taken if to in (None, sent.to)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                sent = Sent(body["to"], body["text"], time.monotonic())
                receiver.requests.append(sent)
                answer = receiver.answering(sent)
                if answer == "drop":
                    self.close_connection = True
                    return
                if answer == 200:
                    receiver.taken.append(sent)
                self.send_response(429 if isinstance(answer, float) else int(answer))
                if isinstance(answer, float):
                    self.send_header("Retry-After", f"{answer}")
                name = f"id-{len(receiver.taken)}".encode()
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _first_time(journal: str, word: str) -> bool:
    try:
        os.close(os.open(f"{journal}.{word}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _after(response: Response) -> None:
    if "dies-after-commit" in response.message and _first_time(
        os.environ["TEST_JOURNAL"], "dies-after-commit"
    ):
        os.kill(os.getpid(), signal.SIGKILL)


agent = Agent(
    "obedient",
    provider=Obedient(os.environ.get("TEST_JOURNAL", os.devnull)),
    fallback_message="Sorry, that did not work.",
    hooks=Hooks(after_respond=_after),
)
