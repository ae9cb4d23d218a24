"""Answer: what a model said, whichever API it was asked through, and what that comes to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from inturn.agent.provider import ModelReply, ToolCall
from inturn.contract import Usage
from inturn.errors import ProviderError


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs for a million tokens; the same unit for all models, such as US dollars.

    `cached_input` is for those tokens of the input that the provider had in its cache; None: they cost as
    much as the others.
    """

    input: float
    output: float
    cached_input: float | None = None

    def of(self, usage: Usage) -> float:
        """What these tokens cost."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = usage.input_tokens - usage.cached_tokens
        return (
            fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output
        ) / 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer as it came.

    `fault` is set if the model did not come to its end: `refusal`, `content_filter`, or the provider's word
    for an answer that was cut off.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    fault: str | None = None
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=lambda: Usage(calls=1))

    def to_reply(self, price: Price | None) -> ModelReply:
        """The reply; raises `ProviderError` if the answer is none."""
        if self.fault is not None:
            raise ProviderError(_told(self.fault))
        usage = self.usage
        if price is not None:
            usage = usage.model_copy(update={"cost": price.of(usage)})
        if self.calls:
            return ModelReply({}, usage, "tool_calls", self.calls)
        return ModelReply(_parsed(self.text), usage, self.finish_reason)


def tokens(input_tokens: Any, output_tokens: Any, details: Any) -> Usage:
    """The usage of one call; `details` is what the API says about the input.

    What a server leaves out counts as 0.
    """
    return Usage(
        calls=1,
        input_tokens=input_tokens or 0,
        output_tokens=output_tokens or 0,
        cached_tokens=getattr(details, "cached_tokens", None) or 0,
    )


def _told(fault: str) -> str:
    if fault == "refusal":
        return "the model refused to answer"
    if fault == "content_filter":
        return "the provider's content filter stopped the answer"
    return f"the model's answer was cut off ({fault}); allow more with max_output_tokens"


def _parsed(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        raise ProviderError(f"the model's answer is not JSON ({len(text)} characters)") from None
    if not isinstance(data, dict):
        raise ProviderError(f"the model's answer is not a JSON object but {type(data).__name__}")
    return data
