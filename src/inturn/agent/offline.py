"""OfflineProvider: answers by rules, with no network and no key, the same every time."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping
from typing import Any

from inturn.agent.entities import find_entities
from inturn.agent.filling import fill_fields
from inturn.agent.provider import ModelReply, ModelRequest, PlannedStep, in_pieces
from inturn.agent.schema import DONE, NO_ROUTE
from inturn.contract import Usage
from inturn.session.state import utcnow

_PIECE = 16
"""Characters of a piece of a stream."""


class OfflineProvider:
    """Stands in for a language model: in demonstrations, in tests, on a train.

    It reads typed fields out of a message by rules (`inturn.agent.filling`), says the step's prompt as it
    stands, sums up at the end, and chooses the route that shares most words with the message. It knows what
    the request says and nothing else. `latency` is the time one answer takes, in seconds.
    """

    def __init__(self, *, latency: float = 0.0) -> None:
        self.latency = latency

    def generate(self, request: ModelRequest) -> ModelReply:
        """See `Provider.generate`; never raises."""
        if self.latency:
            time.sleep(self.latency)
        return self._reply(request)

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """See `Provider.stream`; the latency is spread over the pieces. Never raises."""
        reply = self._reply(request)
        pieces = 1 + len(str(dict(reply.data))) // _PIECE
        return (yield from in_pieces(reply, size=_PIECE, pause=self.latency / pieces))

    def _reply(self, request: ModelRequest) -> ModelReply:
        data = self._answer(request)
        words = sum(len(message.content.split()) for message in request.messages)
        said = str(data.get("message", "")).split()
        return ModelReply(data, Usage(calls=1, input_tokens=words, output_tokens=len(said)))

    def _answer(self, request: ModelRequest) -> dict[str, Any]:
        if request.choices:
            return {"route": _choose(request)}
        values = fill_fields(request)
        step = next((step for step in request.plan if _is_open(step, values)), None)
        return {**values, "next_step": step.id if step else DONE, "message": _reply(request, values, step)}


def _is_open(step: PlannedStep, values: Mapping[str, Any]) -> bool:
    return not step.fields or any(field not in values for field in step.fields)


def _choose(request: ModelRequest) -> str:
    message = request.messages[-1]
    # A date speaks for a route that collects a date: what was found counts by the name of its kind.
    found = find_entities(message.content, (message.timestamp or utcnow()).date())
    said = _stems(" ".join([message.content, *(entity.kind for entity in found)]))
    scores = {route_id: len(said & _stems(text)) for route_id, text in request.choices.items()}
    best = max(scores, key=lambda route_id: scores[route_id])
    return best if scores[best] else NO_ROUTE


def _reply(request: ModelRequest, values: Mapping[str, Any], step: PlannedStep | None) -> str:
    if request.refused:
        reasons = "; ".join(f"{_label(name)}: {_lower(why)}" for name, why in request.refused.items())
        return f"Sorry, that does not work ({reasons}). {step.prompt if step else ''}".strip()
    if step is None and request.route is not None:
        collected = {**request.known, **values}
        return f"Thank you. I have: {_listed(collected)}." if collected else "Thank you."
    if step is not None and not values and set(step.fields) & set(request.asked):
        return f"Sorry, I did not get that. {step.prompt}"
    unasked = {name: value for name, value in values.items() if name not in request.asked}
    began = not any(message.role == "assistant" for message in request.messages)
    question = step.prompt if step else "How can I help you?" if began else "Can I do anything else for you?"
    return f"Noted: {_listed(unasked)}. {question}" if unasked else question


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{_label(name)} {_spoken(value)}" for name, value in values.items())


def _spoken(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return re.sub(r"^(\d\d:\d\d):00$", r"\1", str(value))


def _label(name: str) -> str:
    return name.replace("_", " ")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


_SMALL = re.compile(
    "a|an|and|are|at|be|can|could|do|for|have|hi|how|i|in|is|it|me|my|of|on|or|please|the|to|we|with|you|your"
)


def _stems(text: str) -> set[str]:
    words = [word for word in re.findall(r"\w+", text.lower()) if not _SMALL.fullmatch(word)]
    return {re.sub(r"(?:ations?|ings?|ed|es|s|e)$", "", word) if len(word) > 3 else word for word in words}
