"""A question to a language model, and OpenAI's words for answers to it, in both of its APIs."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

import pytest

from inturn.agent.openai import OpenAIProvider
from inturn.agent.provider import ModelReply, ModelRequest
from inturn.agent.schema import Reply
from inturn.errors import ProviderError
from inturn.session.state import HistoryItem

Api = Literal["responses", "chat"]
Way = Literal["generate", "stream"]

APIS: list[Api] = ["responses", "chat"]
WAYS: list[Way] = ["generate", "stream"]

SECRET = "my dog is called Rex"
"""What the user says; no error may repeat it."""

REQUEST = ModelRequest(
    instructions="You are kind.",
    messages=(
        HistoryItem(role="user", content="hi"),
        HistoryItem(role="assistant", content="hello"),
        HistoryItem(role="user", content=SECRET),
    ),
    output=Reply,
)


def asked(*messages: HistoryItem, **fields: Any) -> ModelRequest:
    """A request with these messages."""
    return ModelRequest(instructions="You are kind.", messages=messages, output=Reply, **fields)


def heard(stream: Generator[str, None, ModelReply]) -> tuple[list[str], ModelReply]:
    """The pieces of a stream, and its reply."""
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


def reply_of(provider: OpenAIProvider, request: ModelRequest = REQUEST, way: Way = "generate") -> ModelReply:
    """The reply, asked for in one way or the other."""
    return provider.generate(request) if way == "generate" else heard(provider.stream(request))[1]


def failure(
    provider: OpenAIProvider, request: ModelRequest = REQUEST, way: Way = "generate"
) -> ProviderError:
    """The error that the call ends with."""
    with pytest.raises(ProviderError) as caught:
        reply_of(provider, request, way)
    assert SECRET not in str(caught.value)
    return caught.value


def response(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A whole answer of the Responses API."""
    return {"id": "r", "object": "response", "status": "completed", "output": list(output), **fields}


def message(*content: dict[str, Any]) -> dict[str, Any]:
    """A message in such an answer."""
    return {
        "type": "message",
        "id": "m",
        "role": "assistant",
        "status": "completed",
        "content": list(content),
    }


def text(said: str) -> dict[str, Any]:
    """A text in such a message."""
    return {"type": "output_text", "text": said, "annotations": []}


def completion(finish_reason: str | None = "stop", usage: Any = None, **said: Any) -> dict[str, Any]:
    """A whole answer of Chat Completions."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", **said}}
    return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage}


def chunk(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """An event of a stream of Chat Completions."""
    choice = {"index": 0, "finish_reason": finish_reason, "delta": delta}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}


def whole(api: Api, said: str) -> dict[str, Any]:
    """A whole answer that is a text."""
    return response(message(text(said))) if api == "responses" else completion(content=said)


def opening(api: Api) -> dict[str, Any]:
    """The first event of a stream, before there is any output."""
    if api == "responses":
        return {"type": "response.created", "response": response(status="in_progress")}
    return chunk(role="assistant", content="")


def piece(api: Api, said: str) -> dict[str, Any]:
    """An event that adds a text."""
    if api == "responses":
        return {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "delta": said}
    return chunk(content=said)


def ending(api: Api, said: str) -> list[Any]:
    """The events that end a stream."""
    if api == "responses":
        return [{"type": "response.completed", "response": whole(api, said)}]
    return [chunk("stop"), "[DONE]"]


def events(api: Api, *said: str) -> list[Any]:
    """A whole stream."""
    return [opening(api), *(piece(api, each) for each in said), *ending(api, "".join(said))]
