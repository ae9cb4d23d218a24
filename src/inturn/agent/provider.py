"""Provider: what an agent asks of a language model, and what it gets back."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from inturn.contract import Usage
from inturn.session.state import HistoryItem


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that is still to do, and the fields it still has to fill."""

    id: str
    prompt: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that the model may call; `parameters` is the JSON schema of its arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that the model asks for: `arguments` is JSON text as the model wrote it, not checked yet.

    `id` tells the calls of one reply apart, also two of the same tool.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolRound:
    """The calls of one reply, and what each came to: `outputs[i]` is the output of `calls[i]`, as text."""

    calls: tuple[ToolCall, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One question to a model.

    `instructions`, `messages`, `rounds`, `tools` and `output` are the whole question; a provider for a
    language model needs no more. The rest repeats, as data, what they say in words, for providers that go by
    rules.

    `instructions` never contains a user's words. `messages` is the conversation, oldest first; the last one
    is the user's message to answer. A line of the role `tool` is the output of a call in an earlier turn: its
    `name` is the tool's, and `tool_calls` holds the call (`id`, `name`, `arguments`). `rounds` are the tool
    calls made for this answer so far: they follow the messages. `output` describes the JSON object wanted:
    the fields of the agent's schema (null: not stated), what else the turn needs to know, and `message`, the
    reply, last; or `message` alone; or `route`; or `summary`.
    """

    instructions: str
    messages: tuple[HistoryItem, ...]
    output: type[BaseModel]
    tools: tuple[ToolSpec, ...] = ()
    rounds: tuple[ToolRound, ...] = ()
    route: str | None = None
    """The title of the route that the conversation is in."""
    plan: tuple[PlannedStep, ...] = ()
    """The open steps in order: `message` serves the first one that the user's message leaves open."""
    asked: tuple[str, ...] = ()
    """The fields that the last reply asked for."""
    known: Mapping[str, Any] = field(default_factory=dict)
    """The values collected so far."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Fields whose new value was not valid, and why not."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Where a route is to be chosen: what each ID stands for."""
    others: Mapping[str, str] = field(default_factory=dict)
    """The routes that `switch_route` may name: what each ID stands for."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """What each field of `decisions` asks: a condition in words, true or false of this conversation."""


@dataclass(frozen=True, slots=True)
class ModelReply:
    """The JSON object a model answered with, what it cost, and why the model stopped.

    With `tool_calls` the model wants these run first, and `data` says nothing yet.
    """

    data: Mapping[str, Any]
    usage: Usage = field(default_factory=lambda: Usage(calls=1))
    finish_reason: str = "stop"
    tool_calls: tuple[ToolCall, ...] = ()


def in_pieces(reply: ModelReply, *, size: int = 12, pause: float = 0.0) -> Generator[str, None, ModelReply]:
    """A reply that is there already, as a stream: in pieces of `size` characters, `pause` seconds apart."""
    text = "" if reply.tool_calls else json.dumps(dict(reply.data), ensure_ascii=False, default=str)
    for start in range(0, len(text), size):
        if pause:
            time.sleep(pause)
        yield text[start : start + size]
    return reply


@runtime_checkable
class Provider(Protocol):
    """Asks one language model.

    One provider serves many conversations from many threads at once; after a fork each process makes its
    own connections. A provider may have an attribute `token_budget`: the most tokens that the model should
    be sent; longer conversations are then compacted.

    Both methods raise `ProviderUnavailableError` where the same call may succeed later (429, 5xx, time-outs,
    lost connections), `ProviderError` for everything else; neither contains text of the conversation. What
    is in `data` need not be valid: the agent checks it.
    """

    def generate(self, request: ModelRequest) -> ModelReply:
        """Return the model's answer, complete."""
        ...

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """Yield the text of the JSON object piece by piece as the model writes it; return the whole answer.

        The pieces joined are the text that `data` was read from; calls of tools are not among them. A caller
        that closes the generator early ends the call. A stream that breaks off is an error, never an answer.
        """
        ...
