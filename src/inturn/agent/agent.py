"""Agent: a definition, and one conversation that it holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

import structlog
from pydantic import BaseModel

from inturn.agent.budget import TurnBudget
from inturn.agent.context import Scene
from inturn.agent.conversation import Conversation, Taken
from inturn.agent.definition import Definition, Knowledge
from inturn.agent.hooks import Hooks
from inturn.agent.journal import Journal
from inturn.agent.provider import Provider
from inturn.agent.route import Route
from inturn.agent.rows import reply_rows, tool_rows, turn_row
from inturn.agent.said import Said, checked, said_rows, storable, together
from inturn.agent.stream import TurnStream
from inturn.agent.tools import Permit, Tool
from inturn.agent.turn import Turn
from inturn.contract import Piece, Response, TurnFault, TurnResult
from inturn.errors import TurnFailedError
from inturn.persistence.adapter import PersistenceAdapter
from inturn.persistence.manager import PersistenceManager
from inturn.persistence.schema_versions import MigrateSession
from inturn.session.manager import SessionManager
from inturn.session.state import Delivery, HistoryItem, SessionState, utcnow
from inturn.values import to_json

log = structlog.get_logger(__name__)

T = TypeVar("T")

Persistence = PersistenceManager | PersistenceAdapter | str


class Agent:
    """Answers the messages of one conversation, by routes and steps, with a language model.

    - `schema` is the pydantic model whose fields the conversation collects, `routes` says how.
    - `instructions` tell the model who it is; `glossary` is words with their meaning, `knowledge` what it
      should know: texts, or a function of the turn that looks them up. What a function returns is told as
      data, for it may come from anywhere.
    - `tools` may be called by the model in every route; see `Tool`, and `@agent.tool`. `max_tool_rounds` is
      how often in one turn the model may ask for calls before it has to answer.
    - `hooks` are the application's own code around each turn; see `Hooks`. `context` is what that code works
      with; it is never stored. `context_provider` is called with the session's ID at the start of each turn
      and returns more of it.
    - `persistence` is where sessions live: a `PersistenceManager`, an adapter, or a URL. Without it the
      conversation lives in this object. `session_id` is loaded or created with the first use.
    - `auto_save=False`: turns stay in memory until `agent.session.save()`, and no turn ID is remembered. It
      goes with an adapter or a URL; a `PersistenceManager` brings its own.
    - `schema_version` and `migrate_session` bring stored sessions to the shape that this code expects; see
      `PersistenceManager`. They go with an adapter or a URL too, and the worker takes them from its agent.
    - `fallback_message` is what the user reads when a turn was given up.
    - `history_window` is how many messages of the history the model sees; a conversation that is longer than
      the provider's `token_budget` is compacted.

    What is declared is checked here: `AgentDefinitionError` names the mistake and the mend. `bind` shares the
    declaration between any number of conversations and threads.
    """

    def __init__(
        self,
        name: str,
        *,
        provider: Provider,
        schema: type[BaseModel] | None = None,
        routes: Iterable[Route] = (),
        tools: Sequence[Tool | Callable[..., Any]] = (),
        instructions: str = "",
        glossary: Mapping[str, str] | None = None,
        knowledge: Knowledge = (),
        context: Mapping[str, Any] | None = None,
        context_provider: Callable[[str], Mapping[str, Any]] | None = None,
        hooks: Hooks | None = None,
        persistence: Persistence | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        auto_save: bool = True,
        fallback_message: str = "Sorry, I could not answer that just now. Please try again in a moment.",
        history_window: int = 50,
        max_tool_rounds: int = 5,
        schema_version: int | None = None,
        migrate_session: MigrateSession | None = None,
    ) -> None:
        self._definition = Definition(
            name=name,
            provider=provider,
            model=schema,
            routes=tuple(routes),
            tools=tools,
            instructions=instructions,
            glossary=dict(glossary or {}),
            knowledge=knowledge,
            context=dict(context or {}),
            context_provider=context_provider,
            hooks=hooks or Hooks(),
            fallback_message=fallback_message,
            history_window=history_window,
            max_tool_rounds=max_tool_rounds,
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
        return self._conversation.session

    @property
    def context(self) -> Mapping[str, Any]:
        """The context as the last turn left it."""
        return dict(self._conversation.context)

    @overload
    def tool(self, function: Callable[..., Any], /) -> Tool: ...

    @overload
    def tool(
        self,
        /,
        *,
        name: str = ...,
        description: str = ...,
        read_only: bool = ...,
        permit: Permit | None = ...,
        timeout: float = ...,
    ) -> Callable[[Callable[..., Any]], Tool]: ...

    def tool(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Add a tool of the whole agent: `@agent.tool`, or `@agent.tool(read_only=True, ...)`.

        The options are those of `Tool`. Conversations made with `bind` have it too.
        """

        def add(function: Callable[..., Any]) -> Tool:
            made = Tool(function, **options)
            self._definition.add_tool(made)
            return made

        return add if function is None else add(function)

    def bind(
        self,
        session_id: str,
        *,
        persistence: Persistence | None = None,
        user_id: str | None = None,
        budget: TurnBudget | None = None,
    ) -> Agent:
        """The same agent in another conversation; `persistence` defaults to this agent's own.

        Cheap: nothing is checked again, nothing is loaded before it is used. The context is the one that the
        agent was made with. A `budget` is asked and told of each call of the model, and serves one turn.
        """
        bound = object.__new__(type(self))
        bound._definition = self._definition
        bound._attach(
            self._persistence if persistence is None else self._manager(persistence), session_id, user_id
        )
        bound._budget = budget
        return bound

    def respond(
        self,
        message: str,
        *,
        turn_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        images: Sequence[str] = (),
        stopped: Callable[[], bool] | None = None,
        delivery: Delivery | None = None,
        further: Sequence[Said] = (),
    ) -> Response:
        """Take one turn: answer `message`, and save the reply, the session and both messages in one step.

        The same `turn_id` again is answered from the store, without the model; if that turn was recorded as
        failed, `TurnFailedError` is raised. `metadata`, a JSON object, is kept with the user's message, and
        `images` as well, the URLs (`https:` or `data:image/`) of what the user shows. `stopped` is asked
        before each call of the model: once it says True, the turn ends with the finish reason `interrupted`.
        With a `delivery` the reply goes out on its channel: it is put into the session's outbox in the same
        commit, for a worker to deliver.

        `further` are messages that came after it and are answered with it, as one: the model reads them line
        by line, the history has each of them in a row of its own, and each turn ID is answered from the store
        from then on. All of them need one. Those that were committed before are left out; the response is
        that of the others, and its `turn_id` is the first one's.

        Whatever is raised, nothing was written but the notes of tools that were called, and the session is as
        before: `InvalidInputError` for a message, images or metadata that no store can keep, `ProviderError`,
        `StoreError`, anything that the agent's own code raises, and `SessionConflictError` if others wrote to
        the session during each of three tries. Calls from several threads wait for each other; one from
        within a turn is a `SessionError`.
        """
        said = [Said(message, turn_id, metadata, images), *further]
        return _exhaust(self._respond(said, stopped or _never, delivery, streams=False))

    def stream(
        self,
        message: str,
        *,
        turn_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        images: Sequence[str] = (),
        stopped: Callable[[], bool] | None = None,
        delivery: Delivery | None = None,
        further: Sequence[Said] = (),
    ) -> TurnStream:
        """Take one turn as `respond` does, telling the reply as it is written.

        The turn begins with the first piece that is read. `stopped` is asked between pieces too; the text
        told until then is committed, and recorded as interrupted. A turn that was committed before is told
        from the store, in one piece.
        """
        stop = threading.Event()
        asked = stopped or _never
        said = [Said(message, turn_id, metadata, images), *further]
        turn = self._respond(said, lambda: stop.is_set() or asked(), delivery, streams=True)
        return TurnStream(turn, stop)

    def record_failure(
        self,
        message: str,
        fault: TurnFault,
        *,
        turn_id: str,
        images: Sequence[str] = (),
        delivery: Delivery | None = None,
        further: Sequence[Said] = (),
    ) -> Response:
        """Record a turn as given up: `message` and the agent's fallback message are added to the history.

        So are the calls of tools that the turn is known to have made. Everything else of the session stays as
        it is. Of a message that no store can keep, which may be why the turn failed, the rest is kept. The
        response carries the fallback message and the finish reason `failed`. A turn that was recorded before
        changes nothing: its stored response is returned, and another finish reason tells that it had
        succeeded. With a `delivery` the fallback message goes out on its channel; `further` as in `respond`.
        """
        said = [storable(each) for each in (Said(message, turn_id, images=images), *further)]

        def give_up(session: SessionState, turn_ids: Sequence[str]) -> Generator[Piece, None, Taken]:
            turn_id = turn_ids[0]
            route = session.current_route.id if session.current_route else None
            step = session.current_step.id if session.current_step else None
            journal = Journal(self.session, turn_id)
            journal.close()
            now = utcnow()
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
            result = TurnResult(
                kind="respond",
                session_id=session.id,
                turn_id=turn_id,
                state="failed",
                response=response,
                error=fault,
            )
            yield Piece(reply.content, restarts=True)
            return Taken(
                result,
                [
                    *said_rows(session, turn_ids, said, route, step, now, self._user_id),
                    *tool_rows(session, turn_id, journal.rounds, route, step),
                    turn_row(session, turn_id, reply, route, step, {"failed": fault.type}),
                ],
                self._conversation.context,
            )

        merged = [each.turn_id or "" for each in further]
        result, _ = _exhaust(self._conversation.take(turn_id, give_up, delivery, merged))
        self._conversation.note_merged()
        return result.response

    def _respond(
        self,
        said: Sequence[Said],
        stopped: Callable[[], bool],
        delivery: Delivery | None,
        *,
        streams: bool,
    ) -> Generator[Piece, None, Response]:
        said = checked(said)
        merged = [each.turn_id or "" for each in said[1:]]

        def answer(session: SessionState, turn_ids: Sequence[str]) -> Generator[Piece, None, Taken]:
            turn_id, now = turn_ids[0], utcnow()
            scene = Scene(
                definition=self._definition,
                session=session,
                message=together(said, turn_ids, now),
                turn_id=turn_id,
                user_id=self._user_id or session.user_id,
                context={},
                journal=Journal(self.session, turn_id),
                length=self.session.length,
                budget=self._budget,
                persistence=self.session.get_persistence_manager(),
            )
            scene.context.update({**self._conversation.context, **self._provided(session.id), **scene.ids})
            outcome = yield from Turn(scene, streams=streams, stopped=stopped).run()
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
            return Taken(
                TurnResult(kind="respond", session_id=session.id, turn_id=turn_id, response=response),
                [
                    *said_rows(session, turn_ids, said, outcome.route, outcome.answered, now, self._user_id),
                    *reply_rows(session, turn_id, outcome),
                ],
                scene.context,
            )

        result, is_new = yield from self._conversation.take(said[0].turn_id, answer, delivery, merged)
        if is_new:
            self._tell_after(result.response)
        self._conversation.note_merged()
        if result.error is not None:
            raise TurnFailedError(
                f"turn {result.turn_id} was given up: {result.error.type}: {result.error.message}",
                turn_id=result.turn_id,
            )
        return result.response

    def _provided(self, session_id: str) -> Mapping[str, Any]:
        provider = self._definition.context_provider
        return {} if provider is None else provider(session_id)

    def _tell_after(self, response: Response) -> None:
        after = self._definition.hooks.after_respond
        if after is not None:
            try:
                after(response)
            except Exception as error:
                # The turn is committed; whoever waits for it must hear that it is.
                log.warning("after_respond failed", turn_id=response.turn_id, error=type(error).__name__)
            if self._persistence is not None:
                self._persistence.forget()  # it may have changed the session in a way of its own

    def _attach(
        self, persistence: PersistenceManager | None, session_id: str | None, user_id: str | None
    ) -> None:
        self._persistence = persistence
        self._user_id = user_id
        self._budget: TurnBudget | None = None
        session = SessionManager(
            persistence,
            session_id=session_id,
            user_id=user_id,
            agent_name=self.name,
            validate=self._definition.schema.check if self._definition.schema.fields else None,
        )
        self._conversation = Conversation(session, self._definition.context)

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


def _exhaust(turn: Generator[Piece, None, T]) -> T:
    while True:
        try:
            next(turn)
        except StopIteration as end:
            value: T = end.value
            return value


def _never() -> bool:
    return False


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data as it comes back from a store: a response is the same whenever it is asked for."""
    plain: dict[str, Any] = json.loads(to_json(data, "data"))
    return plain
