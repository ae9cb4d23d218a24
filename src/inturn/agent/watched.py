"""Watched: calls of the model and of tools, as metrics and traces show them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

from inturn.agent.provider import ModelReply, Provider
from inturn.contract import Usage
from inturn.metrics import counting, kind_of
from inturn.tracing import Attributes, detail

STOPPED = "stopped"
"""The outcome of a call whose rest nobody wanted."""


class StoppedError(Exception):
    """Somebody asked for the turn to end; it never leaves the turn."""


class ModelCall:
    """Around one call of the model: how long it takes, when its first piece comes, and what it uses.

    Give it the `reply`; where there is none, perhaps the `usage`, about. Of what is asked and answered it
    tells nothing but counts.
    """

    def __init__(self, provider: Provider, *, streams: bool) -> None:
        self.reply: ModelReply | None = None
        self.usage: Usage | None = None
        self._model = str(getattr(provider, "model", type(provider).__name__))
        # A stream is left and entered again between its pieces.
        self._span = detail(
            f"chat {self._model}", _about(provider, self._model), kind="client", current=not streams
        )
        self._first: float | None = None

    def __enter__(self) -> Self:
        self._span.__enter__()
        self._began = time.monotonic()
        return self

    def came(self) -> None:
        """Note that a piece has come."""
        if self._first is None:
            self._first = time.monotonic() - self._began

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = error if isinstance(error, Exception) and not isinstance(error, StoppedError) else None
        reply, usage = self.reply, self.usage if self.reply is None else self.reply.usage
        if counting() is not None:
            outcome = STOPPED if reply is None else "ok"
            self._count(outcome if failure is None else kind_of(failure), usage)
        self._span.set(
            {
                "gen_ai.usage.input_tokens": None if usage is None else usage.input_tokens,
                "gen_ai.usage.output_tokens": None if usage is None else usage.output_tokens,
                "gen_ai.response.finish_reasons": None if reply is None else [reply.finish_reason],
                "inturn.first_token_seconds": self._first,
            }
        )
        self._span.__exit__(None if failure is None else type(failure), failure, trace)

    def _count(self, outcome: str, usage: Usage | None) -> None:
        metrics, model = counting(), self._model
        if metrics is None:
            return
        metrics.model.labels(model).observe(time.monotonic() - self._began)
        metrics.model_calls.labels(model, outcome).inc()
        if self._first is not None:
            metrics.first_token.labels(model).observe(self._first)
        if usage is not None:
            metrics.tokens.labels(model, "input").inc(usage.input_tokens)
            metrics.tokens.labels(model, "output").inc(usage.output_tokens)
            if usage.cached_tokens:
                metrics.cached_tokens.labels(model).inc(usage.cached_tokens)
            if usage.cost:
                metrics.cost.labels(model).inc(usage.cost)


@contextmanager
def tool_call(tool: str, call_id: str) -> Iterator[None]:
    """Around one call of a tool, in the thread that makes it."""
    began = time.monotonic()
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
        "gen_ai.tool.call.id": call_id,
    }
    try:
        with detail(f"execute_tool {tool}", attributes):
            yield
    finally:
        if (metrics := counting()) is not None:
            metrics.tool.labels(tool).observe(time.monotonic() - began)


def count_tool_call(tool: str, outcome: Literal["ok", "failed", "timeout"]) -> None:
    """Count what the model was told of a call."""
    if (metrics := counting()) is not None:
        metrics.tool_calls.labels(tool, outcome).inc()


def _about(provider: Provider, model: str) -> Attributes:
    name = type(provider).__name__
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai" if name == "OpenAIProvider" else name,
        "gen_ai.request.model": model,
    }
