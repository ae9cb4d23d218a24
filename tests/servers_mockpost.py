"""mockpost: a double of Twilio's Messages API, and of much else, made by others; a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inturn.embedded.ports import free_port
from inturn.embedded.tether import tethered
from tests.waiting import wait_until

# It opens all of them. SMTP is asked for in a thread, and tried after HTTP; the passive ports are not opened
# before anybody uses FTP.
_PORTS = ("HTTP", "SMTP", "FTP", "FTPS", "FTPS_IMPLICIT", "SFTP")
_LIMIT = 500
"""The most messages that it lists."""


@dataclass(frozen=True)
class TextMessage:
    """A text message that it was asked to send; `asked` are the fields of the request."""

    to: str
    sender: str
    body: str
    sid: str
    asked: dict[str, str]


class MockPost:
    """A running mockpost; `url` is what to set INTURN_TWILIO_BASE_URL to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.url = f"{url}/twilio"

    def messages(self) -> list[TextMessage]:
        """The text messages that it has taken, in order."""
        listed = self._ask(f"/api/messages?channel=sms&limit={_LIMIT}")
        assert len(listed) < _LIMIT, "mockpost lists no more messages: forget() some"
        return [
            TextMessage(
                to=each["recipient"],
                sender=each["sender"],
                body=each["body"],
                sid=json.loads(each["meta"])["sid"],
                asked=json.loads(each["raw_payload"]),
            )
            for each in reversed(listed)
        ]

    def forget(self) -> None:
        """Forget the messages."""
        self._ask("/api/messages?channel=sms", "DELETE")

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self._ask("/health"))
        except OSError:
            return False

    def _ask(self, path: str, method: str = "GET") -> Any:
        # Not by a proxy that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self._url + path, method=method), timeout=10) as answer:
            return json.load(answer)


@contextmanager
def mockpost() -> Iterator[MockPost]:
    """Give a running mockpost, all of its ports on loopback, its files in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="inturn-mockpost-") as directory:
        ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        env = {
            name: value
            for name, value in os.environ.items()
            if not re.match("MOCKPOST_|.*_proxy$", name, re.I)
        }
        env |= {f"MOCKPOST_{name}_PORT": str(port) for name, port in ports.items()}
        env |= {
            "MOCKPOST_HOST": "127.0.0.1",
            "MOCKPOST_SMTP_HOST": "127.0.0.1",
            "MOCKPOST_LOG_LEVEL": "warning",
        }
        log = Path(directory) / "log"
        command = tethered([sys.executable, "-m", "mockpost.cli"])
        with (
            log.open("w") as output,
            subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=directory, env=env
            ) as process,
        ):
            server = MockPost(f"http://127.0.0.1:{ports['HTTP']}")
            try:
                wait_until(lambda: _answers(server, process, log), timeout=60, what="mockpost to answer")
                yield server
            finally:
                process.kill()


def _answers(server: MockPost, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, f"mockpost did not start: {log.read_text()}"
    return server.is_up()


def _free_ports(count: int) -> set[int]:
    found = set[int]()
    while len(found) < count:
        found.add(free_port())
    return found
