"""Provider: what an agent asks of a language model, and what it gets back."""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One question to a model.

    `instructions`, `messages` and `output` are the whole question; a provider for a language model needs
    no more. The rest repeats, as data, what they say in words, for providers that go by rules.

    `instructions` never contains a user's words. `messages` is the conversation, oldest first; the last one
    is the user's message to answer. `output` describes the JSON object wanted: the fields of the
    agent's schema (null: not stated), `next_step` where there are steps, and `message`; or `message` alone;
    or `route`.
    """

    instructions: str
    messages: tuple[HistoryItem, ...]
    output: type[BaseModel]
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


@dataclass(frozen=True, slots=True)
class ModelReply:
    """The JSON object a model answered with, what it cost, and why the model stopped."""

    data: Mapping[str, Any]
    usage: Usage = field(default_factory=lambda: Usage(calls=1))
    finish_reason: str = "stop"


@runtime_checkable
class Provider(Protocol):
    """Asks one language model.

    One provider serves many conversations from many threads at once; after a fork each process makes its
    own connections.
    """

    def generate(self, request: ModelRequest) -> ModelReply:
        """Return the model's answer, complete.

        Raises `ProviderUnavailableError` where the same call may succeed later (429, 5xx, time-outs, lost
        connections), `ProviderError` for everything else; neither contains text of the conversation. What
        is in `data` need not be valid: the agent checks it.
        """
        ...
