"""Question: a request in the parts that both APIs put into words of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from inturn.agent.json_schema import strict_parameters, strict_schema
from inturn.agent.provider import ModelRequest, ToolCall, ToolRound, ToolSpec
from inturn.session.state import HistoryItem


def conversation(request: ModelRequest) -> Iterator[HistoryItem | ToolRound]:
    """What was said, oldest first, then the rounds of tool calls.

    A line of a tool becomes the round that it is; lines that say nothing are left out, and so is a tool's
    line that does not tell its call.
    """
    for line in request.messages:
        if line.role == "tool":
            if (call := _call_of(line)) is not None:
                yield ToolRound((call,), (line.content,))
        elif line.content.strip() or images(line):
            yield line
    yield from request.rounds


def images(line: HistoryItem) -> list[str]:
    """The URLs of the images that a user sent; the APIs take them from no other role."""
    return (line.images or []) if line.role == "user" else []


def arguments(call: ToolCall) -> str:
    """A call's arguments as the models are told of them: a model that writes none at all means none."""
    return call.arguments or "{}"


def output_format(request: ModelRequest) -> dict[str, Any]:
    """The JSON object that is wanted."""
    schema, strict = strict_schema(request.output)
    return {"name": request.output.__name__, "schema": schema, "strict": strict}


def function(tool: ToolSpec) -> dict[str, Any]:
    """A tool that is offered."""
    parameters, strict = strict_parameters(tool.parameters)
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
        "strict": strict,
    }


def given(value: Any) -> Any:
    """The value, or what the client takes for one that is not stated."""
    from openai import omit

    return value or omit


def _call_of(line: HistoryItem) -> ToolCall | None:
    call: Mapping[str, Any] = (line.tool_calls or [{}])[0]
    name = call.get("name") or line.name
    if not call.get("id") or not name:
        return None
    written = call.get("arguments") or ""
    return ToolCall(call["id"], name, written if isinstance(written, str) else json.dumps(written))
