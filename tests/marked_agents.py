"""An agent for tests of erasure: it puts what it is told everywhere where an agent can put it.

`remember` collects the message and has a tool give it back; `refused` fails for good; `hold` waits in the
middle of the reply until a file is there. The journal has a line for each call of the model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

from pydantic import BaseModel

from inturn import Agent, TurnContext
from inturn.agent import ModelReply, ModelRequest, ToolCall
from inturn.agent.provider import in_pieces
from inturn.errors import ProviderError
from tests.waiting import wait_until

JOURNAL = os.environ.get("TEST_JOURNAL", os.devnull)


class Told(BaseModel):
    """What is collected."""

    word: str | None = None


class Marked:
    """A provider that repeats what it hears."""

    def generate(self, request: ModelRequest) -> ModelReply:
        """Answer."""
        text = self._begin(request)
        if "remember" in text and not request.rounds:
            return ModelReply({}, tool_calls=(ToolCall("call-1", "echo", json.dumps({"text": text})),))
        if "hold" in text:
            wait_until(Path(f"{JOURNAL}.go").exists, timeout=90)
        said = {"word": text, "message": f"you said: {text}"}
        return ModelReply({name: said.get(name) for name in request.output.model_fields})

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """Answer, piece by piece."""
        reply = self.generate(request)
        if not reply.tool_calls:
            return (yield from in_pieces(reply))
        return reply

    def _begin(self, request: ModelRequest) -> str:
        text = request.messages[-1].content
        with Path(JOURNAL).open("a") as journal:
            journal.write("call\n")
        if "refused" in text:
            raise ProviderError
        return text


agent = Agent("marked", provider=Marked(), schema=Told, fallback_message="Sorry, that did not work.")


@agent.tool(timeout=60)
def echo(turn: TurnContext, text: str) -> str:
    """Give it back."""
    return f"heard {text}"
