"""Agents for worker tests: what they do is written in the message, and what they did in a journal.

A message is words: `sleep 0.2` takes that long, `unavailable 2` fails twice as an overloaded provider does,
`refused` fails for good, `bug` raises an error that quotes the user, `die 2` kills its own process twice.
Anything else is just said. Each call of the model is journaled, so tests see what ran, and not only what
was committed.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from inturn.agent import Agent
from inturn.agent.provider import ModelReply, ModelRequest
from inturn.errors import ProviderError, ProviderUnavailableError


class Call(NamedTuple):
    """One call of the model: times on the machine's monotonic clock; `ended` is None for one cut off."""

    text: str
    pid: int
    started: float
    ended: float | None


class Obedient:
    """A provider that does what it is told."""

    def __init__(self, journal: str) -> None:
        self._journal = journal

    def generate(self, request: ModelRequest) -> ModelReply:
        """Do what the last message says."""
        text = request.messages[-1].content
        before = sum(call.text == text for call in read_journal(self._journal))
        started = time.monotonic()
        self._note(text, started, None)
        words = text.split()
        for word, value in zip(words, [*words[1:], ""], strict=True):
            if word == "sleep":
                time.sleep(float(value))
            elif word == "unavailable" and before < int(value):
                raise ProviderUnavailableError
            elif word == "refused":
                raise ProviderError
            elif word == "bug":
                raise ValueError(f"cannot parse {text!r}")
            elif word == "die" and before < int(value):
                os.kill(os.getpid(), signal.SIGKILL)
        self._note(text, started, time.monotonic())
        return ModelReply({"message": f"you said: {text}"})

    def _note(self, text: str, started: float, ended: float | None) -> None:
        line = json.dumps([text, os.getpid(), started, ended]) + "\n"
        handle = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.close(handle)


def read_journal(path: str | Path) -> list[Call]:
    """All calls so far, in the order in which they began."""
    calls: dict[tuple[str, int, float], Call] = {}
    if Path(path).exists():
        for line in Path(path).read_text().splitlines():
            call = Call(*json.loads(line))
            calls[call[:3]] = call
    return sorted(calls.values(), key=lambda call: call.started)


agent = Agent(
    "obedient",
    provider=Obedient(os.environ.get("TEST_JOURNAL", os.devnull)),
    fallback_message="Sorry, that did not work.",
)
