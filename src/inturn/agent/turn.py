"""Turn: one message of the user taken through the agent's plan, to a reply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from inturn.agent.definition import Definition
from inturn.agent.prompt import choice_request, reply_request, turn_request
from inturn.agent.provider import ModelReply, ModelRequest, PlannedStep
from inturn.agent.route import Route, missing
from inturn.agent.schema import DONE, clean
from inturn.agent.step import Step
from inturn.contract import Usage
from inturn.errors import ProviderError
from inturn.session.state import HistoryItem, RouteRef, SessionState, StepRef


@dataclass(frozen=True)
class Outcome:
    """What a turn came to. `answered` is the step that had been said before it, `step` the one it says."""

    message: str
    route: str | None
    step: str | None
    answered: str | None
    is_route_complete: bool
    usage: Usage
    finish_reason: str


class Turn:
    """Takes one turn. It changes the session it is given; what fails half way is the caller's to undo.

    Extraction and reply are one call to the model: it fills the fields that the message states and writes a
    message for the step it expects to come next, which it names. Then code checks the values and decides
    which step really comes next. Only where the two differ, because a value was refused or a condition in
    code decides otherwise, a second call asks for the message of the right step. With the choice of a route
    that makes one call for most turns and three at most.
    """

    def __init__(self, definition: Definition, session: SessionState, message: HistoryItem) -> None:
        self._definition = definition
        self._session = session
        self._message = message
        self._usage = Usage()

    def run(self) -> Outcome:
        """Take the turn."""
        route = self._current_route() or self._choose_route()
        reply, step, answered = self._converse(route)
        return Outcome(
            message=_message(reply),
            route=route.id if route else None,
            step=step.id if step else None,
            answered=answered,
            is_route_complete=route is not None and self._advance(route, step),
            usage=self._usage,
            finish_reason=reply.finish_reason,
        )

    def _current_route(self) -> Route | None:
        session = self._session
        if session.current_route is None:
            return None
        route = self._definition.route(session.current_route.id)
        if route is None:  # An older definition had it.
            session.leave_route()
        return route

    def _choose_route(self) -> Route | None:
        session, definition = self._session, self._definition
        completed = {entry.route_id for entry in session.route_history if entry.completed}
        eligible = [
            route for route in definition.routes if route.id not in completed and route.matches(session)
        ]
        pending, session.pending = session.pending or {}, None
        chosen = next((route for route in eligible if route.id == pending.get("route")), None)
        if chosen is None and eligible:
            if len(eligible) == 1 and self._is_settled(eligible[0]):
                chosen = eligible[0]
            else:
                reply = self._ask(choice_request(definition, session, self._message, eligible))
                chosen = next((route for route in eligible if route.id == reply.data.get("route")), None)
        if chosen is not None:
            session.enter_route(RouteRef(id=chosen.id, title=chosen.title))
        return chosen

    def _is_settled(self, only: Route) -> bool:
        """Whether code alone may enter the only route left.

        It may where code chose the route, or where there was never another. Else the message may be about
        nothing at all, a "thank you" after a booking, and the model is asked.
        """
        return callable(only.when) or (only.when is None and len(self._definition.routes) == 1)

    def _converse(self, route: Route | None) -> tuple[ModelReply, Step | None, str | None]:
        """The reply, the step it serves, and the step that the message answered."""
        definition, session = self._definition, self._session
        answered = session.current_step.id if session.current_step else None
        said = route.position(answered) if route else -1
        asked = missing(route.steps[said].collect, session.data) if route and said >= 0 else ()
        plan = _planned(route.open_steps(session, said)) if route else []
        reply = self._ask(turn_request(definition, session, self._message, route, plan, asked))

        values, refused = definition.schema.accept(reply.data)
        self._store(values, route)
        left = list(islice(route.open_steps(session, said, refused), 1)) if route else []
        step = left[0][0] if left else None
        due = step.id if step else DONE
        if refused or reply.data.get("next_step", due) != due:
            following = _planned(left)
            reply = self._ask(reply_request(definition, session, self._message, route, following, refused))
        return reply, step, answered

    def _store(self, values: Mapping[str, Any], route: Route | None) -> None:
        session = self._session
        session.data = {**session.data, **values}
        if route is not None:
            of_route = {name: session.data[name] for name in route.fields if name in session.data}
            session.data_by_route = {**session.data_by_route, route.id: of_route}

    def _advance(self, route: Route, step: Step | None) -> bool:
        """Note that `step` was said; complete the route if nothing is left after it."""
        session = self._session
        if step is not None:
            if session.current_step is None or session.current_step.id != step.id:
                session.enter_step(StepRef(id=step.id, description=step.description or step.prompt))
            if step.collect or any(True for _ in route.open_steps(session, route.position(step.id))):
                return False
        session.leave_route(completed=True)
        following = route.on_complete(session) if callable(route.on_complete) else route.on_complete
        if following is not None:
            session.pending = {"route": following}
        return True

    def _ask(self, request: ModelRequest) -> ModelReply:
        reply = self._definition.provider.generate(request)
        self._usage = self._usage + reply.usage
        return reply


def _planned(steps: Iterable[tuple[Step, tuple[str, ...]]]) -> list[PlannedStep]:
    return [PlannedStep(step.id, step.prompt, fields) for step, fields in steps]


def _message(reply: ModelReply) -> str:
    message = clean(reply.data.get("message"))
    if not isinstance(message, str) or not message.strip():
        raise ProviderError("the model's answer has no message")
    return message
