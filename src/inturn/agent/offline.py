"""OfflineProvider: answers by rules, with no network and no key, the same every time."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping
from typing import Any

from inturn.agent.calling import due_calls, label, spoken, spoken_results
from inturn.agent.entities import Entity, find_entities
from inturn.agent.filling import asked, fill_fields
from inturn.agent.provider import ModelReply, ModelRequest, PlannedStep, in_pieces
from inturn.agent.schema import DONE, NO_ROUTE, Digest
from inturn.agent.stems import agrees, stems, telling
from inturn.contract import Usage
from inturn.session.state import HistoryItem, utcnow

_PIECE = 16
"""Characters of a piece of a stream."""
_QUESTION = re.compile(
    r"(?:are|can|could|do|does|how|is|may|what|when|where|which|who|will|would)\b|.*\?\s*$", re.I | re.S
)
_COLLECTS = re.compile(r"Collects [\w, ]+\.$")


class OfflineProvider:
    """Stands in for a language model: in demonstrations, in tests, on a train.

    - It reads typed fields out of a message by rules (`inturn.agent.filling`), says the step's prompt as it
      stands, and sums up at the end.
    - It chooses the route that shares most words with the message, and goes over to another one where a
      message states nothing and shares words with that route alone.
    - A condition in words holds if the message shares a telling word with it; it does not if one of the two
      denies that word.
    - It calls tools whose arguments are known (`inturn.agent.calling`), and says what they return.

    It knows what the request says and nothing else. `latency` is the time one answer takes, in seconds.
    """

    def __init__(self, *, latency: float = 0.0) -> None:
        self.latency = latency

    def generate(self, request: ModelRequest) -> ModelReply:
        """See `Provider.generate`; never raises."""
        if self.latency:
            time.sleep(self.latency)
        return _reply(request)

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """See `Provider.stream`; the latency is spread over the pieces. Never raises."""
        reply = _reply(request)
        if self.latency and reply.tool_calls:
            time.sleep(self.latency)
        pieces = 1 + len(str(dict(reply.data))) // _PIECE
        return (yield from in_pieces(reply, size=_PIECE, pause=self.latency / pieces))


def _reply(request: ModelRequest) -> ModelReply:
    words = sum(len(message.content.split()) for message in request.messages)
    if request.choices:
        return ModelReply({"route": _choose(request)}, Usage(calls=1, input_tokens=words))
    if request.output is Digest:
        return ModelReply({"summary": _summary(request.messages)}, Usage(calls=1, input_tokens=words))
    values = fill_fields(request)
    if calls := due_calls(request, values):
        return ModelReply({}, Usage(calls=1, input_tokens=words), "tool_calls", calls)
    data = _answer(request, values)
    said = len(str(data["message"]).split())
    return ModelReply(data, Usage(calls=1, input_tokens=words, output_tokens=said))


def _answer(request: ModelRequest, values: Mapping[str, Any]) -> dict[str, Any]:
    step = next((step for step in request.plan if _is_open(step, values)), None)
    answer = {
        **values,
        "decisions": _decide(request),
        "switch_route": _switch(request, values),
        "next_step": step.id if step else DONE,
        "message": _message(request, values, step),
    }
    return {name: answer.get(name) for name in request.output.model_fields}  # null: not stated


def _is_open(step: PlannedStep, values: Mapping[str, Any]) -> bool:
    return not step.fields or any(field not in values for field in step.fields)


def _choose(request: ModelRequest) -> str:
    # A date speaks for a route that collects a date: what was found counts by the name of its kind.
    said = stems(" ".join([request.messages[-1].content, *(entity.kind for entity in _found(request))]))
    scores = {route_id: len(said & stems(text)) for route_id, text in request.choices.items()}
    best = max(scores, key=lambda route_id: scores[route_id])
    return best if scores[best] else NO_ROUTE


def _found(request: ModelRequest) -> list[Entity]:
    message = request.messages[-1]
    return find_entities(message.content, (message.timestamp or utcnow()).date())


def _switch(request: ModelRequest, values: Mapping[str, Any]) -> str | None:
    """The other route that the message asks for. To be wrong here costs more than to ask once more."""
    if not request.others or request.rounds or values or _found(request):
        return None
    message = request.messages[-1].content
    said = telling(message)
    here = telling(" ".join([request.route or "", *(step.prompt for step in request.plan)]))
    shared = {
        route_id: len(said & telling(_COLLECTS.sub("", text))) for route_id, text in request.others.items()
    }
    best = max(shared, key=lambda route_id: shared[route_id])
    needed = 1 if _QUESTION.match(message) else 2
    is_clear = list(shared.values()).count(shared[best]) == 1 and not said & here
    return best if is_clear and shared[best] >= needed else None


def _decide(request: ModelRequest) -> dict[str, bool | None]:
    said = request.messages[-1].content
    return {key: agrees(said, condition) for key, condition in request.conditions.items()}


def _message(request: ModelRequest, values: Mapping[str, Any], step: PlannedStep | None) -> str:
    results = spoken_results(request)
    return f"{results} {_words(request, values, step, after_results=bool(results))}".strip()


def _words(
    request: ModelRequest, values: Mapping[str, Any], step: PlannedStep | None, *, after_results: bool
) -> str:
    if request.refused:
        reasons = "; ".join(f"{label(name)}: {_lower(why)}" for name, why in request.refused.items())
        return f"Sorry, that does not work ({reasons}). {step.prompt if step else ''}".strip()
    if step is None and request.route is not None:
        collected = {name: value for name, value in {**request.known, **values}.items() if value is not None}
        return f"Thank you. I have: {_listed(collected)}." if collected else "Thank you."
    if step is not None and not values and not after_results and set(step.fields) & set(asked(request)):
        return f"Sorry, I did not get that. {step.prompt}"
    unasked = {name: value for name, value in values.items() if name not in asked(request)}
    began = not after_results and not any(message.role == "assistant" for message in request.messages)
    question = step.prompt if step else "How can I help you?" if began else "Can I do anything else for you?"
    return f"Noted: {_listed(unasked)}. {question}" if unasked and not after_results else question


def _summary(messages: tuple[HistoryItem, ...]) -> str:
    """Who said what, in the first words of each line."""
    lines = [
        f"{line.role}: {' '.join(line.content.split()[:20])}" for line in messages if line.content.strip()
    ]
    return " ".join(" / ".join(lines).split()[:200])


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{label(name)} {_short(spoken(value))}" for name, value in values.items())


def _short(text: str) -> str:
    return re.sub(r"^(\d\d:\d\d):00$", r"\1", text)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
