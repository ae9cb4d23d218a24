"""Agents made of recorded services, and a model that answers what was recorded.

A service becomes an agent by itself: its slots are the fields of the schema, and each intent is a route with
a step for each of its slots, of which the optional ones come last. Conversations go on after an intent was
served, so every route is reentrant.

Where a slot has only certain values, its field is a `Literal` of them and of "dontcare", the recordings' word
for "any will do". It is the only word outside the possible values that users are recorded with (7 times), so
that all such fields can be strict.

The recordings say what each message states, and what holds after it. What comes to hold without having been
stated was offered by the service and accepted, or held before and still does: a route that is entered again
is empty. Then the model calls the tool `take_offer` first.

`agent` is one agent of all services, for workers, which have one agent each. Its fields and routes have the
service's name before their own. The model knows the service as it knows the turn: by what the user has said.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest
from pydantic import BaseModel, Field, create_model

from inturn import Agent, Route, Step, TurnContext, tool
from inturn.agent import ModelReply, ModelRequest, ScriptedProvider, ToolCall
from inturn.agent.schema import DONE, NO_ROUTE
from inturn.contract import Response
from inturn.errors import ProviderUnavailableError
from tests.nodes import ROOT

RECORDED = ROOT.parent / "shared" / "data"
"""Where the recordings are, if they are here: they are not part of this project."""

needs_recordings = pytest.mark.skipif(
    not RECORDED.exists(),
    reason="there are no recorded conversations beside this checkout",
)

ANY = "dontcare"
NO_INTENT = "NONE"


@dataclass(frozen=True)
class RecordedTurn:
    """A user's message: what it states, and all that holds after it: each field with the words for it."""

    session_id: str
    user_id: str
    text: str
    service: str
    intent: str | None
    new_values: Mapping[str, str]
    state: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Named:
    """How slots and intents are named in an agent: as they are, or behind their service's name."""

    by_service: bool

    def field(self, service: str, slot: str) -> str:
        return f"{service}_{slot}" if self.by_service else slot

    def route(self, service: str, intent: str) -> str:
        return f"{service}:{intent}" if self.by_service else intent


@cache
def services() -> dict[str, dict[str, Any]]:
    """The recorded services by name."""
    found: list[dict[str, Any]] = json.loads((RECORDED / "services.json").read_text())
    return {service["service_name"]: service for service in found}


@cache
def conversations() -> list[list[RecordedTurn]]:
    """The recorded conversations, each in its order."""
    found: dict[str, list[RecordedTurn]] = {}
    for line in (RECORDED / "dialogues.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["session_id"], []).append(
            RecordedTurn(
                session_id=record["session_id"],
                user_id=record["user_id"],
                text=record["text"],
                service=record["service"],
                intent=None if record["intent"] == NO_INTENT else record["intent"],
                new_values=record["new_values"],
                state=record["state"],
            )
        )
    return list(found.values())


@tool
def take_offer(turn: TurnContext, values: dict[str, str]) -> str:
    """Keep what was offered and the user has accepted.

    Args:
        values: The accepted words, by the name of their field.
    """
    turn.set_data(values)
    return f"{len(values)} accepted"


def agent_of(
    some: Iterable[str],
    turns: Iterable[Sequence[RecordedTurn]],
    *,
    knows_next: bool = True,
    is_busy: bool = False,
    **options: Any,
) -> Agent:
    """An agent of the services with these names, whose model answers what was recorded; see `Script`."""
    described = [services()[name] for name in some]
    named = Named(by_service=len(described) > 1)
    return Agent(
        described[0]["service_name"] if len(described) == 1 else "all services",
        instructions=" ".join(service["description"] + "." for service in described),
        provider=ScriptedProvider(Script(turns, named, knows_next=knows_next, is_busy=is_busy)),
        schema=_schema(described, named),
        routes=[_route(service, intent, named) for service in described for intent in service["intents"]],
        tools=[take_offer],
        **options,
    )


class Script:
    """What the model answers: the turn is found by all that the user has said in the conversation.

    With `knows_next` it names the step that comes next, without the one that was due before the message. If
    it `is_busy`, it answers no question before it is asked for the second time.
    """

    def __init__(
        self,
        turns: Iterable[Sequence[RecordedTurn]],
        named: Named,
        *,
        knows_next: bool = True,
        is_busy: bool = False,
    ) -> None:
        self._turns = {
            tuple(each.text for each in turns[: number + 1]): turn
            for turns in turns
            for number, turn in enumerate(turns)
        }
        self._named = named
        self._knows_next = knows_next
        self._is_busy = is_busy
        self._asked: set[tuple[object, ...]] = set()

    def __call__(self, request: ModelRequest) -> ModelReply | dict[str, Any]:
        # Notes of the engine are lines of a user too, but nobody said them at any time.
        said = tuple(line.content for line in request.messages if line.role == "user" and line.timestamp)
        turn = self._turns[said]
        question = (said, request.route, tuple(request.output.model_fields), len(request.rounds))
        if self._is_busy and question not in self._asked:
            self._asked.add(question)
            raise ProviderUnavailableError
        wanted = self._named.route(turn.service, turn.intent) if turn.intent else None
        message = reply_to(turn)
        if request.choices:
            return {"route": wanted or NO_ROUTE}
        if list(request.output.model_fields) == ["message"]:
            return {"message": message}
        answer: dict[str, Any] = dict.fromkeys(request.output.model_fields)
        if wanted is not None and request.route != wanted:
            return {**answer, "switch_route": wanted, "next_step": DONE, "message": message}
        stated = self._fields(turn, turn.new_values)
        offered = {
            name: words[0]
            for name, words in self._fields(turn, turn.state).items()
            if name not in stated and request.known.get(name) not in words
        }
        if offered and not request.rounds:
            call = ToolCall("offer", take_offer.name, json.dumps({"values": offered}))
            return ModelReply({}, tool_calls=(call,))
        answer |= stated
        if "next_step" in answer:
            known = {**request.known, **self._fields(turn, turn.state)} if self._knows_next else request.known
            answer["next_step"] = _next(request, known)
        return {**answer, "message": message}

    def _fields(self, turn: RecordedTurn, values: Mapping[str, Any]) -> dict[str, Any]:
        return {self._named.field(turn.service, slot): value for slot, value in values.items()}


class Course:
    """How a conversation has to go by its recording, whatever engine holds it."""

    def __init__(self, named: Named) -> None:
        self._named = named
        self._route: str | None = None  # the intent that the conversation is in, if it goes on
        self._asked = -1  # how far in it the agent has asked

    def wrong(
        self, turn: RecordedTurn, response: Response, *, rounds: int | None = None, guesses: int = 0
    ) -> dict[str, Any]:
        """What is wrong with the next response, by what it is about: nothing, one hopes.

        It costs one call of the model, one more where a route is chosen or changed, one for each of the
        `rounds` of tools, and at most one for each of the wrong `guesses` of the next step. Costs are not
        looked at if `rounds` is None.
        """
        intent = turn.intent or self._route
        stays = intent is not None and intent == self._route
        due = self._due(turn, intent, self._asked if stays else -1)
        self._route, self._asked = (None, -1) if due is None else (intent, due[0])
        calls = response.usage.calls
        least = calls if rounds is None else (1 if stays else 2) + rounds
        found = {
            "message": (response.message, reply_to(turn)),
            "route": (response.route, intent and self._named.route(turn.service, intent)),
            "step": (response.step, due and self._named.field(turn.service, due[1])),
            "is_route_complete": (response.is_route_complete, intent is not None and due is None),
            "calls": (calls, max(least, min(calls, least + guesses))),
        }
        wrong = {about: both for about, both in found.items() if both[0] != both[1]}
        return wrong | wrong_fields(turn, response.data, self._named)

    def _due(self, turn: RecordedTurn, intent: str | None, asked: int) -> tuple[int, str] | None:
        """The first slot of the intent that has no value, and is required or was not asked for yet."""
        for described in services()[turn.service]["intents"]:
            if described["name"] == intent:
                for place, slot in enumerate(_slots(described)):
                    if slot not in turn.state and (slot in described["required_slots"] or place > asked):
                        return place, slot
        return None


def reply_to(turn: RecordedTurn) -> str:
    """What the agent replies."""
    return f"You said: {turn.text}"


def wrong_fields(turn: RecordedTurn, data: Mapping[str, Any], named: Named) -> dict[str, Any]:
    """The fields of `data` that are not as recorded after this turn, and those that are not there."""
    state = {named.field(turn.service, slot): words for slot, words in turn.state.items()}
    return {
        name: (data.get(name), state.get(name))
        for name in data.keys() | state.keys()
        if data.get(name) not in state.get(name, ())
    }


def _slots(intent: Mapping[str, Any]) -> list[str]:
    """The slots that an intent asks for, in order."""
    return [*intent["required_slots"], *intent["optional_slots"]]


def _next(request: ModelRequest, known: Collection[str]) -> str:
    open_steps = (step.id for step in request.plan if any(name not in known for name in step.fields))
    return next(open_steps, DONE)


def _schema(described: Iterable[Mapping[str, Any]], named: Named) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for service in described:
        for slot in service["slots"]:
            values = (*slot["possible_values"], ANY)
            hint = Literal[values] if slot["is_categorical"] else str
            name = named.field(service["service_name"], slot["name"])
            fields[name] = (hint, Field(description=slot["description"]))
    return create_model("Slots", **fields)


def _route(service: Mapping[str, Any], intent: Mapping[str, Any], named: Named) -> Route:
    def field(slot: str) -> str:
        return named.field(service["service_name"], slot)

    described = {slot["name"]: slot["description"] for slot in service["slots"]}
    name = named.route(service["service_name"], intent["name"])
    return Route(
        name,
        id=name,
        description=intent["description"],
        required_fields=[field(slot) for slot in intent["required_slots"]],
        optional_fields=[field(slot) for slot in intent["optional_slots"]],
        steps=[Step(f"{described[slot]}?", collect=[field(slot)]) for slot in _slots(intent)],
        reentrant=True,
    )


if TYPE_CHECKING:
    agent: Agent


def __getattr__(name: str) -> Agent:
    """`agent`, made when a worker asks for it: whoever only imports this module may have no recordings."""
    if name != "agent":
        raise AttributeError(name)
    globals()[name] = agent_of(services(), conversations())
    return cast(Agent, globals()[name])
