"""PersistenceManager: the seed's operations on stored sessions and messages, over any adapter."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from inturn.contract import Response, TurnResult
from inturn.errors import InvalidInputError, SessionAccessError, SessionError
from inturn.ids import check_id
from inturn.persistence.adapter import Committed, Loaded, PersistenceAdapter
from inturn.persistence.conflicts import repeat_on_conflict
from inturn.persistence.kept import KeptSession
from inturn.persistence.repositories import MessageRepository, SessionRepository
from inturn.persistence.schema_versions import MigrateSession, SchemaVersions
from inturn.persistence.timing import timed
from inturn.session.state import (
    HistoryItem,
    Message,
    SessionState,
    Status,
    TurnRecord,
    create_message,
    create_messages,
    create_session,
)
from inturn.values import to_json


class PersistenceManager:
    """Stored sessions and messages.

    - `adapter` is a `PersistenceAdapter`, initialised by the caller, or a URL for `open_adapter`, whose
      adapter the manager initialises, and closes in `close()`.
    - `auto_save=False`: what a `SessionManager` changes is saved by its `save()` only. The methods here
      always write at once.
    - `user_id`: the manager acts for this user. Sessions it creates are theirs; those of others, or of
      nobody, are out of its reach: finds return nothing, loads and changes raise `SessionAccessError`. So an
      agent, or a tool, that is given this manager reaches them neither.
    - `history_window`: the messages that `load` puts into a session's `history`.
    - `schema_version`: the version of what the application keeps in a session, a whole number. New sessions
      get it. One of an older version (None: saved before there was any) goes through
      `migrate_session(session, old_version)`, which returns it in its new shape; the next save writes it,
      and the new version with it. Without `migrate_session` it stays as it is, its version too, and a
      warning tells of each such version once. `migrate_session` raised: `SessionMigrationError`. A session
      of a newer version is not for this process to touch: `SessionTooNewError`. Lists show sessions as
      they are stored.

    Changes (`save_message`, `update_...`) are repeated on the new state when another writer came between,
    so neither is lost. Operations of more than 1,000 ms are logged as warnings. Safe to share between
    threads.
    """

    def __init__(
        self,
        adapter: PersistenceAdapter | str,
        *,
        auto_save: bool = True,
        user_id: str | None = None,
        history_window: int = 50,
        schema_version: int | None = None,
        migrate_session: MigrateSession | None = None,
    ) -> None:
        if history_window < 0:
            raise InvalidInputError(f"history_window must not be negative: {history_window}")
        self._schema = SchemaVersions(schema_version, migrate_session)
        self._owned = isinstance(adapter, str)
        self._adapter = _opened(adapter) if isinstance(adapter, str) else adapter
        self.auto_save = auto_save
        self.history_window = history_window
        self._kept: KeptSession | None = None
        self._act_for(user_id)

    def acting_for(self, user_id: str) -> PersistenceManager:
        """The same sessions, for this user alone; the adapter stays this manager's to close.

        Raises `InvalidInputError` where this manager acts for another user.
        """
        if self.user_id not in (None, check_id(user_id, "user ID")):
            raise InvalidInputError(f"this manager acts for user {self.user_id!r}, and for nobody else")
        theirs = copy.copy(self)
        theirs._act_for(user_id)
        return theirs

    def keeping(self, kept: KeptSession) -> PersistenceManager:
        """The same sessions, for one drive of one of them: between its turns `kept` has it.

        The adapter stays this manager's to close.
        """
        theirs = copy.copy(self)
        theirs._kept = kept
        return theirs

    def get_adapter(self) -> PersistenceAdapter:
        """The adapter, for queries that the manager has no method for.

        It reaches everybody's sessions: a manager that acts for one user raises `SessionError`.
        """
        if self.user_id is not None:
            raise SessionError(
                "a manager that acts for one user gives no adapter, for that reaches everybody's sessions; "
                "use the one that the manager was made of"
            )
        return self._adapter

    def close(self) -> None:
        """Close the adapter if the manager opened it from a URL."""
        if self._owned:
            self._adapter.close()

    # Sessions

    @timed
    def create_session(
        self,
        *,
        user_id: str | None = None,
        agent_name: str | None = None,
        initial_data: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> SessionState:
        """Create and save a session; raises `SessionConflictError` if `id` is taken."""
        return self._sessions.create(
            create_session(id, user_id=user_id, agent_name=agent_name, data=initial_data)
        )

    @timed
    def find_session_by_id(self, session_id: str) -> SessionState | None:
        """Find a session, without its history."""
        return self._sessions.find_by_id(session_id)

    @timed
    def find_active_session_by_user_id(self, user_id: str) -> SessionState | None:
        """Find the active session of a user that was changed last, without its history."""
        return self._sessions.find_active_by_user_id(user_id)

    @timed
    def find_sessions_by_user_id(
        self,
        user_id: str,
        *,
        limit: int | None = 100,
        status: Status | None = None,
        older_than: datetime | None = None,
    ) -> list[SessionState]:
        """List a user's sessions without their histories, last changed first.

        `older_than` is the time of the last change, exclusive; `limit=None` lists all.
        """
        return self._sessions.find_by_user_id(user_id, limit=limit, status=status, older_than=older_than)

    @timed
    def update_session_status(
        self, session_id: str, status: Status, completed_at: datetime | None = None
    ) -> SessionState:
        """Set the status; `completed` is stamped with `completed_at` or now."""
        return self._sessions.update_status(session_id, status, completed_at)

    def complete_session(self, session_id: str) -> SessionState:
        """Set the status to `completed`, as of now."""
        return self.update_session_status(session_id, "completed")

    def abandon_session(self, session_id: str) -> SessionState:
        """Set the status to `abandoned`."""
        return self.update_session_status(session_id, "abandoned")

    @timed
    def update_collected_data(self, session_id: str, patch: Mapping[str, Any]) -> SessionState:
        """Merge `patch` into the collected data: keys it does not name, and the history, stay."""
        return self._sessions.update_collected_data(session_id, patch)

    @timed
    def update_route_step(
        self, session_id: str, route: str | None = None, step: str | None = None
    ) -> SessionState:
        """Move a session to a route and a step of it, by their IDs; None leaves the route, or the step."""
        return self._sessions.update_route_step(session_id, route, step)

    @timed
    def delete_session(self, session_id: str, *, expected_version: int | None = None) -> bool:
        """Delete a session with its messages; False if there was none, or none of `expected_version`."""
        return self._sessions.delete(session_id, expected_version=expected_version)

    # Messages

    @timed
    def save_message(
        self,
        *,
        session_id: str,
        role: str,
        content: str,
        route: str | None = None,
        step: str | None = None,
        tool_calls: list[dict[str, Any]] | None = None,
        event: dict[str, Any] | None = None,
        user_id: str | None = None,
    ) -> Message:
        """Append a message to a session; without a `user_id` it belongs to the session's user."""
        return self._messages.create(
            create_message(
                session_id,
                role,
                content,
                route=route,
                step=step,
                tool_calls=tool_calls,
                event=event,
                user_id=user_id,
            )
        )

    @timed
    def find_messages_by_session_id(self, session_id: str, *, limit: int | None = 1000) -> list[Message]:
        """List the newest `limit` messages of a session (None: all), oldest first.

        They are the whole record: messages from before a `clear_history` are among them.
        """
        return self._messages.find_by_session_id(session_id, limit=limit)

    @timed
    def find_messages_by_user_id(self, user_id: str, *, limit: int | None = 100) -> list[Message]:
        """List a user's messages over all sessions, newest first (`limit=None`: all)."""
        return self._messages.find_by_user_id(user_id, limit=limit)

    @timed
    def load_session_history(self, session_id: str, *, limit: int | None = 1000) -> list[HistoryItem]:
        """List the newest `limit` lines of the conversation (None: all), oldest first.

        A conversation starts anew with `clear_history`. Empty if there is no such session.
        """
        session = self._sessions.find_by_id(session_id)
        if session is None:
            return []
        found = self._messages.find_by_session_id(session_id, limit=limit, after=session.history_start)
        return [message.to_history_item() for message in found]

    # Whole states

    @timed
    def load_session_state(self, session_id: str) -> SessionState | None:
        """Load a session with the last `history_window` lines of its history."""
        loaded = self._load(session_id, window=self.history_window)
        return None if loaded is None else loaded.session

    @timed
    def save_session_state(self, session_id: str, session: SessionState) -> SessionState:
        """Save a session as a whole and return it, its version, counts and times brought up to date.

        The history is rows of its own and stays as it is; only a session that was never saved brings the
        lines of its `history` along. Raises `SessionConflictError` if the session was changed since it was
        loaded, or if it is new and its ID is taken.
        """
        if session.id != session_id:
            raise InvalidInputError(f"the state of session {session.id!r} is not that of {session_id!r}")
        messages = [] if session.version else create_messages(session, session.history)
        session.adopt(self._commit(session, messages).session)
        return session

    # Turns: what the agent and the worker use

    @timed
    def load(self, session_id: str, *, turn_id: str | None = None) -> Loaded | None:
        """Load a session, its `history` filled from the messages that are returned with it.

        These are the last `history_window` that are still part of the conversation. With `turn_id` also
        that turn's record, if it was committed.
        """
        return self._load(session_id, turn_id, window=self.history_window)

    @timed
    def take_kept(self, session_id: str, turn_id: str) -> SessionState | None:
        """The session with its history as the turn before has left it, of a manager that is `keeping` it.

        None: it is to be loaded, for it was not kept, somebody else has changed it, or this turn was
        committed before.
        """
        session = None if self._kept is None else self._kept.take(self._adapter, session_id, turn_id)
        if session is not None:
            self._check_user(session)
        return session

    def keep(self, session: SessionState) -> None:
        """Keep the session for the next turn of the drive, as it was just committed, with its history."""
        if self._kept is not None:
            self._kept.keep(session)

    def forget(self) -> None:
        """Keep nothing: the next turn is to load its session."""
        if self._kept is not None:
            self._kept.forget()

    @timed
    def commit(
        self, session: SessionState, messages: Sequence[Message] = (), *, turn: TurnRecord | None = None
    ) -> Committed:
        """Save a session, its new messages and its turn in one step, if it still has `session.version`.

        See `PersistenceAdapter.commit`; the arguments are not changed.
        """
        return self._commit(session, messages, turn)

    @timed
    def save_turn(
        self,
        session_id: str,
        turn_id: str,
        *,
        data: Mapping[str, Any] | None = None,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        messages: Iterable[HistoryItem | Mapping[str, Any]] | None = None,
        user_id: str | None = None,
    ) -> TurnRecord:
        """Take a `save_session` turn: merge `data` and `metadata`, set `status`, append `messages`.

        Creates the session if there is none. The record's result is a `TurnResult`; a turn that was
        committed before changes nothing, and its record is returned.
        """
        lines = list(messages or ())

        def take() -> TurnRecord:
            found = self._load(session_id, turn_id, window=0)
            if found is not None and found.turn is not None:
                return found.turn
            session = create_session(session_id, user_id=user_id) if found is None else found.session
            session.data.update(data or {})
            session.metadata.update(metadata or {})
            if status is not None:
                session.set_status(status)
            record = TurnRecord(session_id=session_id, turn_id=turn_id, result=_saved(session, turn_id))
            rows = create_messages(session, lines, turn_id=turn_id, user_id=user_id)
            return self._commit(session, rows, record).turn or record

        return repeat_on_conflict(take)

    @timed
    def find_turns(self, session_id: str, turn_ids: Iterable[str]) -> dict[str, TurnRecord]:
        """The records of those of a session's turns that were committed, by their IDs."""
        found = ((turn_id, self._load(session_id, turn_id, window=0)) for turn_id in turn_ids)
        return {turn_id: each.turn for turn_id, each in found if each is not None and each.turn is not None}

    @timed
    def note_merged(self, session_id: str) -> None:
        """Give each turn that was committed as part of another (`SessionState.merged`) a record of its own.

        It has the other's result, under the turn's own ID: taken again, the turn is answered from the store.
        """

        def write() -> None:
            found = self._load(session_id, window=0)
            if found is None:
                return
            session = found.session
            records = self.find_turns(session_id, set(session.merged.values()))
            for turn_id, into in session.merged.items():
                if into in records:
                    session.journal.pop(turn_id)
                    result = {**records[into].result, "turn_id": turn_id}
                    record = TurnRecord(session_id=session_id, turn_id=turn_id, result=result)
                    session = self._commit(session, (), record).session

        repeat_on_conflict(write)

    def _act_for(self, user_id: str | None) -> None:
        self.user_id = user_id
        self._sessions = SessionRepository(self._adapter, user_id=user_id, schema=self._schema)
        self._messages = MessageRepository(self._adapter, user_id=user_id, schema=self._schema)

    def _load(self, session_id: str, turn_id: str | None = None, *, window: int) -> Loaded | None:
        found = self._adapter.load(session_id, last_messages=window, turn_id=turn_id)
        if found is None:
            return None
        self._check_user(found.session)
        session = self._schema.present(found.session)
        messages = [message for message in found.messages if message.sequence > session.history_start]
        session.history = [message.to_history_item() for message in messages]
        return found._replace(session=session, messages=messages)

    def _commit(
        self, session: SessionState, messages: Sequence[Message] = (), turn: TurnRecord | None = None
    ) -> Committed:
        if session.version == 0 and session.user_id is None:
            session = session.model_copy(update={"user_id": self.user_id})
        self._check_user(session)
        if session.version and self.user_id is not None:
            # Whose it is, is for the store to say, and not for a state that somebody has made or changed.
            stored = self._adapter.load(session.id)
            if stored is not None:
                self._check_user(stored.session)
        session = self._schema.stamp(session)
        self.forget()
        return self._adapter.commit(session, messages, expected_version=session.version, turn=turn)

    def _check_user(self, session: SessionState) -> None:
        if not self._sessions.sees(session):
            raise SessionAccessError(session.id, self.user_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _opened(url: str) -> PersistenceAdapter:
    from inturn.persistence.registry import open_adapter  # the adapters' drivers are loaded for a URL only

    adapter = open_adapter(url)
    adapter.initialize()
    return adapter


def _saved(session: SessionState, turn_id: str) -> dict[str, Any]:
    response = Response(
        message="",
        session_id=session.id,
        turn_id=turn_id,
        data=json.loads(to_json(session.data, "data")),
        finish_reason="saved",
    )
    return TurnResult(
        kind="save_session", session_id=session.id, turn_id=turn_id, response=response
    ).model_dump(mode="json")
