"""An agent for worker tests of time limits: it hangs as the message says.

`hang nap` sleeps in short pieces, `hang sleep` in one, `hang loop` computes, `hang socket` reads from a
connection on which nothing ever comes; `once` hangs at the first try only. The journal has a line for each
try, and one for each that was ended.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Generator
from pathlib import Path

from inturn import Agent
from inturn.agent import ModelReply, ModelRequest

JOURNAL = Path(os.environ.get("TEST_JOURNAL", os.devnull))


class Hanging:
    """A provider that hangs where it is told to."""

    def generate(self, request: ModelRequest) -> ModelReply:
        """Hang, if the message says so, and answer."""
        text = request.messages[-1].content
        self._hang(text)
        return ModelReply({"message": f"you said: {text}"})

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """The same in the middle of a reply."""
        text = request.messages[-1].content
        yield '{"message": "you '
        self._hang(text)
        yield f'said: {text}"}}'
        return ModelReply({"message": f"you said: {text}"})

    def _hang(self, text: str) -> None:
        before = JOURNAL.exists() and f"began {text}\n" in JOURNAL.read_text()
        note(f"began {text}")
        if "hang" not in text or ("once" in text and before):
            return
        try:
            hang(text.split()[1])
        except BaseException as error:
            note(f"{type(error).__name__} in {text}")
            raise


def hang(how: str) -> None:
    """Hang for good."""
    if how == "nap":
        while True:
            time.sleep(0.01)
    elif how == "sleep":
        time.sleep(3600)
    elif how == "socket":
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.recv(1)
    while True:
        pass


def note(line: str) -> None:
    """Write a line to the journal, in one step."""
    handle = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


agent = Agent("hanging", provider=Hanging(), fallback_message="Sorry, that took too long.")
