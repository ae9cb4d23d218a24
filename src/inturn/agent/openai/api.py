"""Api: what OpenAIProvider needs to know of each of OpenAI's two APIs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from inturn.agent.openai.answer import Answer
from inturn.agent.provider import ModelRequest

if TYPE_CHECKING:
    import openai


class Transcript(Protocol):
    """An answer that comes in event by event."""

    def take(self, event: Any) -> str | None:
        """Take in an event; give the text it adds, "" if it is output of another kind, None if it is none."""
        ...

    def answer(self) -> Answer:
        """The whole answer once the stream has ended; `ProviderUnavailableError` if it ended too early."""
        ...


class Api(Protocol):
    """One of the APIs. Its modules read answers without checking their form: see `errors.reading`."""

    def ask(
        self, client: openai.OpenAI, model: str, request: ModelRequest, limit: int | None, **how: Any
    ) -> Any:
        """Send a request; `limit` is the most tokens of the answer, `how` is for the client."""
        ...

    def read(self, given: Any) -> Answer:
        """What the client gave for an answer that was not streamed."""
        ...

    def transcript(self) -> Transcript:
        """A new one."""
        ...
