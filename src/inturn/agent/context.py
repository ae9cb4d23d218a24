"""TurnContext: what the application's own code sees of a turn, and how it changes the session."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from inturn.errors import InvalidInputError, SessionError
from inturn.session.state import HistoryItem, SessionState
from inturn.values import to_json

if TYPE_CHECKING:
    from inturn.agent.budget import TurnBudget
    from inturn.agent.definition import Definition
    from inturn.agent.journal import Journal
    from inturn.persistence.manager import PersistenceManager


@dataclass
class Effects:
    """What code wants changed, as JSON values: it is applied once the code has ended well."""

    data: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    route: str | None = None


@dataclass
class Scene:
    """A turn and all that belongs to it: the one thing that the parts of the engine share."""

    definition: Definition
    session: SessionState
    message: HistoryItem
    turn_id: str
    user_id: str | None
    """Whose turn it is."""
    context: dict[str, Any]
    journal: Journal
    length: int
    """How many messages the session has, those included that are not saved yet."""
    budget: TurnBudget | None = None
    persistence: PersistenceManager | None = None
    """Where the sessions of the agent are."""

    @property
    def ids(self) -> dict[str, Any]:
        """What every context holds: which session, whose, and which turn."""
        session = self.session
        return {"session_id": session.id, "user_id": self.user_id, "turn_id": self.turn_id}


class TurnContext:
    """A turn as conditions, tools, steps' functions and knowledge functions see it.

    What code reads is the session as the turn has it so far. What it changes (`set_data`, `update_context`,
    `go_to`) it sees itself at once; the session has it once the code has returned, and the store with the
    turn's commit. If the code raises, nothing of it is kept.
    """

    def __init__(self, scene: Scene, *, call_id: str | None = None) -> None:
        self._scene = scene
        self._effects = Effects()
        self._call_id = call_id

    @property
    def session_id(self) -> str:
        """The session's ID."""
        return self._scene.session.id

    @property
    def user_id(self) -> str | None:
        """Who speaks, as the producer said: the turn's user, else the session's; None: nobody in particular.

        In a conversation of several, such as a thread of a team, it need not be the user who began it.
        """
        return self._scene.user_id

    @property
    def turn_id(self) -> str:
        """The turn's ID: the same however often the turn is taken, so an idempotency key for others."""
        return self._scene.turn_id

    @property
    def call_id(self) -> str:
        """In a tool: the ID of this very call, also an idempotency key. Elsewhere the turn's ID."""
        return self._call_id or self._scene.turn_id

    @property
    def message(self) -> str:
        """What the user said. Never decide on it what somebody may do."""
        return self._scene.message.content

    @property
    def session(self) -> SessionState:
        """The session as the turn has it so far; to be read only."""
        return self._scene.session

    @property
    def history(self) -> tuple[HistoryItem, ...]:
        """The conversation before this message, oldest first: a window of it."""
        return tuple(self._scene.session.history)

    @property
    def data(self) -> Mapping[str, Any]:
        """The collected data; read only."""
        return MappingProxyType({**self._scene.session.data, **self._effects.data})

    @property
    def context(self) -> Mapping[str, Any]:
        """The agent's context; read only."""
        return MappingProxyType({**self._scene.context, **self._effects.context})

    @property
    def persistence(self) -> PersistenceManager:
        """What is stored of the turn's user: their sessions, and nobody else's.

        Of any other session, this one included if somebody else began it, finds return nothing; loads and
        changes raise `SessionAccessError`. This turn's own session is changed by the methods here: written to
        through the store, it would have the turn taken anew. Raises `SessionError` where the turn is of
        nobody in particular, and for an agent without persistence.
        """
        if self.user_id is None or self._scene.persistence is None:
            missing = "of nobody in particular: give user_id" if self.user_id is None else "kept in no store"
            raise SessionError(f"nothing is stored of the user of turn {self.turn_id}: it is {missing}")
        return self._scene.persistence.acting_for(self.user_id)

    def set_data(self, patch: Mapping[str, Any]) -> None:
        """Merge `patch` into the collected data; None as a value empties a field.

        Raises `InvalidInputError` for a field that the schema does not have, or a value it does not allow.
        """
        schema = self._scene.definition.schema
        checked = schema.check(patch) if schema.fields else dict(patch)
        self._effects.data.update(json.loads(to_json(checked, "data")))

    def update_context(self, patch: Mapping[str, Any]) -> None:
        """Merge `patch` into the agent's context; from a tool only JSON values, for they are noted."""
        if self._call_id is not None:
            patch = json.loads(to_json(dict(patch), "context"))
        self._effects.context.update(copy.deepcopy(dict(patch)))

    def go_to(self, route: str) -> None:
        """Let the next turn go on in the route with this ID; the current one is left unfinished.

        Raises `InvalidInputError` if the agent has no such route.
        """
        if self._scene.definition.route(route) is None:
            routes = ", ".join(each.id for each in self._scene.definition.routes) or "none"
            raise InvalidInputError(f"there is no route {route!r}; the agent has {routes}")
        self._effects.route = route

    def once(self, key: str, function: Callable[[], Any]) -> Any:
        """Call `function` once for this turn and `key`, however often the turn is taken; return its result.

        The result, a JSON value, is noted in the session before this returns; when the turn is taken again,
        after a crash, the note is returned instead. A process that dies after `function` has ended and before
        the note is written calls it again: hand on `turn_id` as an idempotency key where that matters.
        """
        return self._scene.journal.once(key, function)


def effects_of(context: TurnContext) -> Effects:
    """What the code that had `context` wants changed."""
    return context._effects
