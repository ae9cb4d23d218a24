"""Turn: one message of the user taken through the agent's plan, to a reply."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from inturn.agent import changes
from inturn.agent.asking import Asking
from inturn.agent.compaction import compact
from inturn.agent.conditions import words
from inturn.agent.context import Scene, TurnContext
from inturn.agent.journal import Round
from inturn.agent.prompt import choice_request, reply_request, turn_request
from inturn.agent.provider import ModelReply
from inturn.agent.route import OpenStep, Path, Route, missing
from inturn.agent.schema import DONE, clean
from inturn.agent.step import Step
from inturn.agent.watched import StoppedError
from inturn.contract import Piece, Usage
from inturn.errors import ProviderError
from inturn.session.state import HistoryItem, RouteRef, StepRef, Summary

INTERRUPTED = "interrupted"
"""The finish reason of a turn that somebody stopped."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a turn came to. `answered` is the step that had been said before it, `step` the one it says."""

    message: str
    route: str | None
    step: str | None
    answered: str | None
    is_route_complete: bool = False
    usage: Usage
    finish_reason: str
    rounds: list[Round] = field(default_factory=list)
    summary: Summary | None = None


@dataclass
class _Reading:
    """What the model's answer says of the message, and what follows from it."""

    refused: dict[str, str]
    path: Path
    switch: Route | None
    serves: bool
    """Whether the message that the model writes, or is about to write, is the reply."""

    @property
    def due(self) -> OpenStep | None:
        return self.path.steps[0] if self.path.steps else None


class Turn:
    """Takes one turn. It changes the session it is given; what fails half way is the caller's to undo.

    Extraction and reply are one call to the model: it fills the fields that the message states and writes a
    message for the step it expects to come next, which it names. Then code checks the values and decides
    which step really comes next. Only where the two differ, because a value was refused or a condition in
    code decides otherwise, a second call asks for the message of the right step. With the choice of a route,
    or the change to another, that makes one call for most turns and three at most; calls of tools and a
    summary of a long conversation come on top.

    Run as a stream the message is told as the model writes it. It is the last part of the answer, so that
    what comes before has been read, and the message is known to be the reply, before its first word is told.
    """

    def __init__(self, scene: Scene, *, streams: bool, stopped: Callable[[], bool]) -> None:
        self._scene = scene
        self._definition = scene.definition
        self._session = scene.session
        self._asking = Asking(scene, streams=streams, stopped=stopped)
        self._lines: list[HistoryItem] = []
        self._answered: str | None = None
        self._done_before: set[str] = set()
        self._filled: set[str] = set()
        self._may_switch = True  # until the model has chosen a route in this turn
        self._prepared: set[str] = set()
        self._summary: Summary | None = None

    def run(self) -> Generator[Piece, None, Outcome]:
        """Take the turn; yields nothing unless it runs as a stream."""
        due, complete = None, False
        try:
            self._begin()
            reply, route, due, path = yield from self._converse(self._route(), first=True)
            message = _message(reply)
            yield from self._asking.tell(message, whole=True)
            complete = route is not None and self._advance(route, due, path)
            self._finalize(route, due)
            reason = reply.finish_reason
        except StoppedError:
            message, reason = self._asking.told, INTERRUPTED
            route = self._current_route()
            self._finalize(route, None)  # what the user stated is kept, so its steps are done
        self._scene.journal.close()
        return Outcome(
            message=message,
            route=route.id if route else None,
            step=due.id if due else None,
            answered=self._answered,
            is_route_complete=complete,
            usage=self._asking.usage,
            finish_reason=reason,
            rounds=self._asking.rounds,
            summary=self._summary,
        )

    # Before the model is asked

    def _begin(self) -> None:
        scene, definition = self._scene, self._definition
        if definition.hooks.before_respond is not None:
            context = definition.hooks.before_respond(dict(scene.context))
            if context is not None:
                changes.set_context(scene, context)
        budget = getattr(definition.provider, "token_budget", None)
        self._lines, self._summary = compact(scene, budget, self._asking.generate)

    def _route(self) -> Route | None:
        session, journal = self._session, self._scene.journal
        pending, session.pending = session.pending or {}, None
        wanted = self._definition.route(pending.get("route"))
        current = self._current_route()
        if session.current_route is not None and current is None:
            session.leave_route()  # an older definition had it
        if journal.route is not None:
            # Tools were called in it before: what they did belongs to no other route.
            noted = self._definition.route(journal.route[0])
            chosen = None if noted is current else noted
            current = noted
        elif wanted is not None and wanted is not current and self._may_enter(wanted):
            chosen = current = wanted
        elif current is None:
            chosen = current = self._choose()
        else:
            chosen = None
        if chosen is not None:
            self._enter(chosen)
        return current

    def _choose(self) -> Route | None:
        eligible = [route for route in self._definition.routes if self._may_enter(route)]
        if not eligible:
            return None
        if len(eligible) == 1 and self._is_settled(eligible[0]):
            return eligible[0]
        self._may_switch = False
        reply = self._asking.generate(choice_request(self._scene, self._lines, eligible))
        return next((route for route in eligible if route.id == reply.data.get("route")), None)

    def _may_enter(self, route: Route) -> bool:
        history = self._session.route_history
        completed = any(entry.route_id == route.id and entry.completed for entry in history)
        return (route.reentrant or not completed) and route.matches(self._context())

    def _is_settled(self, only: Route) -> bool:
        """Whether code alone may enter the only route left.

        It may where code chose the route, or where there was never another. Else the message may be about
        nothing at all, a "thank you" after a booking, and the model is asked.
        """
        if words(only.when):
            return False
        return bool(only.when) or (len(self._definition.routes) == 1 and not only.reentrant)

    def _enter(self, route: Route) -> None:
        session = self._session
        completed = any(entry.route_id == route.id and entry.completed for entry in session.route_history)
        session.enter_route(RouteRef(id=route.id, title=route.title))
        if completed:
            changes.empty_data(self._scene, route.fields)
        start = {name: route.initial_data[name] for name in missing(list(route.initial_data), session.data)}
        changes.set_data(self._scene, self._definition.schema.check(start) if start else {})

    def _current_route(self) -> Route | None:
        current = self._session.current_route
        return None if current is None else self._definition.route(current.id)

    # The model's answer

    def _converse(
        self, route: Route | None, *, first: bool
    ) -> Generator[Piece, None, tuple[ModelReply, Route | None, Step | None, Path | None]]:
        """The reply, the route and the step it serves, and what is left of the route."""
        session = self._session
        answered = session.current_step.id if session.current_step else None
        self._answered = answered if first else self._answered
        self._done_before = self._done(route)
        self._asking.resume(route)
        said = route.position(answered) if route else -1
        asked = missing(route.steps[said].collect, session.data) if route and said >= 0 else ()
        path = route.path(self._context(), said) if route else Path([], None)
        expected = path.steps[0] if path.steps else None
        self._prepare(expected)
        reading: _Reading | None = None

        def read(data: Mapping[str, Any]) -> bool:
            nonlocal reading
            # What tools did belongs to this route: it is not left any more.
            reading = self._read(data, route, said, switch=self._may_switch and not self._asking.rounds)
            return reading.serves

        steps = [step for step in (answered, expected and expected.step.id) if step]
        if self._must_ask(route, expected, steps):
            request = turn_request(self._scene, self._lines, route, path.steps, asked)
            reply = yield from self._asking.ask(request, route, steps, read)
        else:
            reply = ModelReply({}, Usage())
            read({})
        assert reading is not None, "every answer is read"
        if reading.switch is not None:
            self._may_switch = False
            self._finalize(route, None)
            self._enter(reading.switch)
            return (yield from self._converse(reading.switch, first=False))
        due = reading.due
        if not reading.serves:
            self._prepare(due)
            said_by_code = self._said_by_code(due) if not reading.refused else None
            if said_by_code is not None:
                reply = replace(reply, data={"message": said_by_code}, finish_reason="stop")
            else:
                request = reply_request(self._scene, self._lines, route, due, reading.refused)
                reply = yield from self._asking.ask(request, route, [due.step.id] if due else [])
        return reply, route, due.step if due else None, reading.path

    def _must_ask(self, route: Route | None, expected: OpenStep | None, steps: Iterable[str]) -> bool:
        """Whether the model has something to say or to find out; else code says it all."""
        if expected is None or expected.step.reply is None or self._asking.rounds:
            return True
        finds = self._definition.schema.fields or len(self._definition.routes) > 1 or (route and route.worded)
        return bool(finds or self._definition.tools_of(route, steps))

    def _read(self, data: Mapping[str, Any], route: Route | None, said: int, *, switch: bool) -> _Reading:
        """Take in what the answer says of the message; what it says to the user is not looked at."""
        session, schema = self._session, self._definition.schema
        values, refused = schema.accept(data)
        stay = session.stay
        decisions = data.get("decisions")
        if route is not None and stay is not None and isinstance(decisions, Mapping):
            decided = {key: decisions[key] for key in route.worded if isinstance(decisions.get(key), bool)}
            stay.decisions = {**stay.decisions, **decided}
        before = session.data
        changes.set_data(self._scene, values)
        self._filled.update(missing(list(session.data), before))
        other = self._definition.route(data.get("switch_route")) if switch and route else None
        if other is not None and other is not route and self._may_enter(other):
            return _Reading(refused, Path([], None), other, serves=False)
        path = route.path(self._context(), said, refused) if route else Path([], None)
        due = path.steps[0].step.id if path.steps else DONE
        by_code = bool(path.steps) and path.steps[0].step.reply is not None
        unprepared = (
            bool(path.steps)
            and path.steps[0].step.prepare is not None
            and path.steps[0].step.id not in self._prepared
        )
        serves = not refused and not by_code and not unprepared and data.get("next_step", due) == due
        return _Reading(refused, path, None, serves)

    def _said_by_code(self, due: OpenStep | None) -> str | None:
        if due is None or due.step.reply is None:
            return None
        reply = due.step.reply
        return reply if isinstance(reply, str) else changes.run(self._scene, reply)

    # The steps' own functions

    def _context(self) -> TurnContext:
        return TurnContext(self._scene)

    def _prepare(self, due: OpenStep | None) -> None:
        if due is not None and due.step.prepare is not None and due.step.id not in self._prepared:
            self._prepared.add(due.step.id)
            changes.run(self._scene, due.step.prepare)

    def _done(self, route: Route | None) -> set[str]:
        """The steps of the route that were done before this message: all fields filled, or said if none."""
        if route is None:
            return set()
        data, current = self._session.data, self._session.current_step
        said = route.position(current.id) if current else -1
        return {
            step.id
            for index, step in enumerate(route.steps)
            if (not missing(step.collect, data) if step.collect else index <= said)
            and self._filled.isdisjoint(step.collect)
        }

    def _finalize(self, route: Route | None, said: Step | None) -> None:
        for step in route.steps if route else ():
            done = not missing(step.collect, self._session.data) if step.collect else step is said
            if done and step.id not in self._done_before and step.finalize is not None:
                changes.run(self._scene, step.finalize)

    # After the model was asked

    def _advance(self, route: Route, step: Step | None, path: Path | None) -> bool:
        """Note that `step` was said; leave the route if nothing is left after it.

        A branch may lead out of it before it has all that it requires: then it is left, but not complete.
        """
        session = self._session
        if step is not None:
            if session.current_step is None or session.current_step.id != step.id:
                session.enter_step(StepRef(id=step.id, description=step.description or step.prompt))
            if step.collect:
                return False
            path = route.path(self._context(), route.position(step.id))
            if path.steps:
                return False
        complete = not missing(route.required_fields, session.data)
        session.leave_route(completed=complete)
        following = path.end.route if path is not None and path.end is not None else ""
        if complete and not following and route.on_complete is not None:
            on_complete = route.on_complete
            following = (
                changes.run(self._scene, on_complete) if callable(on_complete) else on_complete
            ) or ""
        if following:
            session.pending = {"route": following}
        return complete


def _message(reply: ModelReply) -> str:
    message = clean(reply.data.get("message"))
    if not isinstance(message, str) or not message.strip():
        raise ProviderError("the model's answer has no message")
    return message
