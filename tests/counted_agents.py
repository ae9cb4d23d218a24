"""An agent whose turns cost the same each time: it says one word. Streamed, it ends by `let_go`."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

from inturn.agent import Agent
from inturn.agent.provider import ModelReply, ModelRequest
from tests.waiting import wait_until


class OneWord:
    """A provider that says "yes"."""

    def generate(self, request: ModelRequest) -> ModelReply:
        """Say it."""
        return ModelReply({"message": "yes"})

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """Say it, and wait before the end: how often a reply is written depends on the time it takes."""
        yield '{"message": "yes'
        wait_until(_gate(os.environ["TEST_JOURNAL"], request.messages[-1].content).exists, timeout=120)
        yield '"}'
        return ModelReply({"message": "yes"})


def let_go(journal: Path, message: str) -> None:
    """Let the reply to this message, a word, end."""
    _gate(journal, message).touch()


def _gate(journal: str | Path, message: str) -> Path:
    return Path(f"{journal}.{message}.go")


agent = Agent("counted", provider=OneWord())
