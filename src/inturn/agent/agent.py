"""Agent: a definition, and one conversation that it holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from inturn.agent.definition import Definition
from inturn.agent.provider import Provider
from inturn.agent.route import Route
from inturn.agent.schema import clean
from inturn.agent.turn import Turn
from inturn.contract import Response, TurnFault, TurnResult
from inturn.errors import InvalidInputError, SessionConflictError, TurnFailedError
from inturn.ids import create_turn_id
from inturn.persistence.adapter import PersistenceAdapter
from inturn.persistence.manager import PersistenceManager
from inturn.persistence.rows import turn_key
from inturn.persistence.schema_versions import MigrateSession
from inturn.session.manager import SessionManager
from inturn.session.state import HistoryItem, Message, SessionState, TurnRecord, utcnow
from inturn.values import to_json, to_text

MAX_TRIES = 3
"""How often a turn is taken anew because somebody else wrote to the session meanwhile."""

Persistence = PersistenceManager | PersistenceAdapter | str


class Agent:
    """Answers the messages of one conversation, by routes and steps, with a language model.

    - `schema` is the pydantic model whose fields the conversation collects, `routes` says how.
    - `instructions` tell the model who it is and what it should know.
    - `persistence` is where sessions live: a `PersistenceManager`, an adapter, or a URL. Without it the
      conversation lives in this object. `session_id` is loaded or created with the first use.
    - `auto_save=False`: turns stay in memory until `agent.session.save()`, and no turn ID is remembered. It
      goes with an adapter or a URL; a `PersistenceManager` brings its own.
    - `schema_version` and `migrate_session` bring stored sessions to the shape that this code expects; see
      `PersistenceManager`. They go with an adapter or a URL too, and the worker takes them from its agent.
    - `fallback_message` is what the user reads when a turn was given up.
    - `history_window` is how many messages of the history the model sees.

    What is declared is checked here: `AgentDefinitionError` names the mistake and the mend. The declaration
    is never changed afterwards, and `bind` shares it between any number of conversations and threads.
    """

    def __init__(
        self,
        name: str,
        *,
        provider: Provider,
        schema: type[BaseModel] | None = None,
        routes: Iterable[Route] = (),
        instructions: str = "",
        persistence: Persistence | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        auto_save: bool = True,
        fallback_message: str = "Sorry, I could not answer that just now. Please try again in a moment.",
        history_window: int = 50,
        schema_version: int | None = None,
        migrate_session: MigrateSession | None = None,
    ) -> None:
        self._definition = Definition(
            name,
            provider=provider,
            schema=schema,
            routes=routes,
            instructions=instructions,
            fallback_message=fallback_message,
            history_window=history_window,
            auto_save=auto_save,
            schema_version=schema_version,
            migrate_session=migrate_session,
        )
        self._attach(self._manager(persistence), session_id, user_id)

    def __repr__(self) -> str:
        return f"<Agent {self.name!r}, session {self.session.id!r}>"

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._definition.name

    @property
    def schema_version(self) -> int | None:
        """The version of what this agent keeps in a session."""
        return self._definition.schema_version

    @property
    def migrate_session(self) -> MigrateSession | None:
        """What brings sessions of older versions to ours."""
        return self._definition.migrate_session

    @property
    def session(self) -> SessionManager:
        """The session of this conversation."""
        return self._session

    def bind(
        self, session_id: str, *, persistence: Persistence | None = None, user_id: str | None = None
    ) -> Agent:
        """The same agent in another conversation; `persistence` defaults to this agent's own.

        Cheap: nothing is checked again, nothing is loaded before it is used.
        """
        bound = object.__new__(type(self))
        bound._definition = self._definition
        bound._attach(
            self._persistence if persistence is None else self._manager(persistence), session_id, user_id
        )
        return bound

    def respond(
        self, message: str, *, turn_id: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Response:
        """Take one turn: answer `message`, and save the reply, the session and both messages in one step.

        The same `turn_id` again is answered from the store, without the model; if that turn was recorded as
        failed, `TurnFailedError` is raised. `metadata`, a JSON object, is kept with the user's message.

        Whatever is raised, nothing was written and the session is as before: `InvalidInputError` for a
        message or metadata that no store can keep, `ProviderError`, `StoreError`, anything that the agent's
        own code raises, and `SessionConflictError` if others wrote to the session during each of three
        tries. Calls from several threads wait for each other.
        """
        _check_text(message)
        event = {"metadata": dict(metadata)} if metadata else None
        to_json(event, "metadata")

        def answer(session: SessionState, turn_id: str) -> _Taken:
            asked = HistoryItem(role="user", content=message, timestamp=utcnow())
            outcome = Turn(self._definition, session, asked).run()
            reply = HistoryItem(role="assistant", content=outcome.message, timestamp=utcnow())
            response = Response(
                message=outcome.message,
                session_id=session.id,
                turn_id=turn_id,
                is_route_complete=outcome.is_route_complete,
                route=outcome.route,
                step=outcome.step,
                data=_plain(session.data),
                usage=outcome.usage,
                finish_reason=outcome.finish_reason,
            )
            return _Taken(
                TurnResult(kind="respond", session_id=session.id, turn_id=turn_id, response=response),
                _row(session, turn_id, asked, outcome.route, outcome.answered, event),
                _row(session, turn_id, reply, outcome.route, outcome.step),
            )

        result = self._take(turn_id, answer)
        if result.error is not None:
            raise TurnFailedError(
                f"turn {result.turn_id} was given up: {result.error.type}: {result.error.message}",
                turn_id=result.turn_id,
            )
        return result.response

    def record_failure(self, message: str, fault: TurnFault, *, turn_id: str) -> Response:
        """Record a turn as given up: `message` and the agent's fallback message are added to the history.

        Everything else of the session stays as it is. Of a message that no store can keep, which may be why
        the turn failed, the rest is kept. The response carries the fallback message and the finish reason
        `failed`. A turn that was recorded before changes nothing: its stored response is returned, and
        another finish reason tells that it had succeeded.
        """

        def give_up(session: SessionState, turn_id: str) -> _Taken:
            route = session.current_route.id if session.current_route else None
            step = session.current_step.id if session.current_step else None
            now = utcnow()
            asked = HistoryItem(role="user", content=clean(message), timestamp=now)
            reply = HistoryItem(role="assistant", content=self._definition.fallback_message, timestamp=now)
            response = Response(
                message=reply.content,
                session_id=session.id,
                turn_id=turn_id,
                route=route,
                step=step,
                data=_plain(session.data),
                finish_reason="failed",
            )
            return _Taken(
                TurnResult(
                    kind="respond",
                    session_id=session.id,
                    turn_id=turn_id,
                    state="failed",
                    response=response,
                    error=fault,
                ),
                _row(session, turn_id, asked, route, step),
                _row(session, turn_id, reply, route, step, {"failed": fault.type}),
            )

        return self._take(turn_id, give_up).response

    def _take(self, turn_id: str | None, take: Callable[[SessionState, str], _Taken]) -> TurnResult:
        if turn_id is not None:
            turn_key(turn_id)  # refuse now what would be refused once the model has answered
        with self._lock:
            for _ in range(MAX_TRIES - 1):
                try:
                    return self._try(turn_id, take)
                except SessionConflictError:
                    pass  # Somebody else wrote: look again at what there is, and decide again.
            return self._try(turn_id, take)

    def _try(self, turn_id: str | None, take: Callable[[SessionState, str], _Taken]) -> TurnResult:
        known = self._session.load(turn_id=turn_id)
        if known is not None:
            return TurnResult.model_validate(known.result)
        try:
            session = self._session.current
            assert session is not None, "load() leaves a session"
            result, *messages = take(session, turn_id or create_turn_id(session.id))
            record = TurnRecord(
                session_id=session.id, turn_id=result.turn_id, result=result.model_dump(mode="json")
            )
            committed = self._session.commit(messages, turn=record)
        except BaseException:
            self._session.rollback()
            raise
        if committed.repeated and committed.turn is not None:
            return TurnResult.model_validate(committed.turn.result)
        return result

    def _attach(
        self, persistence: PersistenceManager | None, session_id: str | None, user_id: str | None
    ) -> None:
        self._persistence = persistence
        self._lock = threading.RLock()
        self._session = SessionManager(
            persistence,
            session_id=session_id,
            user_id=user_id,
            agent_name=self.name,
            validate=self._definition.schema.check if self._definition.schema.fields else None,
        )

    def _manager(self, persistence: Persistence | None) -> PersistenceManager | None:
        if persistence is None or isinstance(persistence, PersistenceManager):
            return persistence
        return PersistenceManager(
            persistence,
            auto_save=self._definition.auto_save,
            history_window=self._definition.history_window,
            schema_version=self.schema_version,
            migrate_session=self.migrate_session,
        )


class _Taken(NamedTuple):
    """What a turn is to be recorded as."""

    result: TurnResult
    asked: Message
    reply: Message


def _row(
    session: SessionState,
    turn_id: str,
    line: HistoryItem,
    route: str | None,
    step: str | None,
    event: dict[str, Any] | None = None,
) -> Message:
    return Message(
        session_id=session.id,
        turn_id=turn_id,
        user_id=session.user_id,
        role=line.role,
        content=line.content,
        route=route,
        step=step,
        event=event,
        created_at=line.timestamp or utcnow(),
    )


def _check_text(message: object) -> None:
    if not isinstance(message, str):
        raise InvalidInputError(f"a message must be a string, not {type(message).__name__}")
    to_text(message, "message")


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data as it comes back from a store: a response is the same whenever it is asked for."""
    plain: dict[str, Any] = json.loads(to_json(data, "data"))
    return plain
