"""Agents for worker tests: what they do is written in the message, and what they did in a journal.

A message is words: `sleep 0.2` takes that long, `unavailable 2` fails twice as an overloaded provider does,
`overloaded` does so until `let_go` is called, `later 60` asks to be asked again in a minute, `refused` fails
for good, `bug` raises an error that quotes the user (`bug 2` does so twice), `die 2` kills its own process
twice, `count 9` counts to nine at the end. Anything else is just said. Where the reply is streamed,
`slowly 0.1` takes that long before each word, `pause` waits in its place until `let_go` is called, and
`breaks 2` breaks the stream off in its place, twice. Each call of the model is journaled, so tests see what
ran, and not only what was committed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from inturn.agent import Agent
from inturn.agent.provider import ModelReply, ModelRequest
from inturn.errors import ProviderError, ProviderUnavailableError
from tests.waiting import wait_until


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
        started, _ = self._obey(text)
        self._note(text, started, time.monotonic())
        return ModelReply({"message": reply_to(text)})

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """Do it, and say the reply word by word."""
        text = request.messages[-1].content
        started, before = self._obey(text)
        reply = {"message": reply_to(text)}
        for word in re.findall(r"\S+\s*", json.dumps(reply)):
            if word.startswith("pause"):
                wait_until(_gate(self._journal).exists, timeout=60)
            elif word.startswith("breaks") and before < _value(text, "breaks"):
                raise ProviderUnavailableError
            time.sleep(_value(text, "slowly"))
            yield word
        self._note(text, started, time.monotonic())
        return ModelReply(reply)

    def _obey(self, text: str) -> tuple[float, int]:
        before = sum(call.text == text for call in read_journal(self._journal))
        started = time.monotonic()
        self._note(text, started, None)
        words = text.split()
        for word, value in zip(words, [*words[1:], ""], strict=True):
            if word == "sleep":
                time.sleep(float(value))
            elif (word == "unavailable" and before < int(value)) or (
                word == "overloaded" and not _gate(self._journal).exists()
            ):
                raise ProviderUnavailableError
            elif word == "later":
                raise ProviderUnavailableError(retry_after=float(value))
            elif word == "refused":
                raise ProviderError
            elif word == "bug" and (not value.isdecimal() or before < int(value)):
                raise ValueError(f"cannot parse {text!r}")
            elif word == "die" and before < int(value):
                os.kill(os.getpid(), signal.SIGKILL)
        return started, before

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


def reply_to(text: str) -> str:
    """What the agent replies to this message."""
    numbers = "".join(f" {number}" for number in range(1, int(_value(text, "count")) + 1))
    return f"you said: {text}{numbers}"


def let_go(journal: str | Path) -> None:
    """Let replies that `pause` go on, those that begin later too."""
    _gate(journal).touch()


def _gate(journal: str | Path) -> Path:
    return Path(f"{journal}.go")


def _value(text: str, word: str) -> float:
    found = re.search(rf"\b{word} ([\d.]+)", text)
    return float(found[1]) if found else 0.0


agent = Agent(
    "obedient",
    provider=Obedient(os.environ.get("TEST_JOURNAL", os.devnull)),
    fallback_message="Sorry, that did not work.",
)
