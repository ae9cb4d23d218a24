"""SessionRepository and MessageRepository: the seed's repositories, once for all adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from inturn.errors import (
    InvalidInputError,
    SessionAccessError,
    SessionConflictError,
    SessionNotFoundError,
)
from inturn.persistence.adapter import (
    MAX_PAGE,
    Committed,
    MessageQuery,
    Page,
    PersistenceAdapter,
    SessionQuery,
    Target,
)
from inturn.persistence.conflicts import repeat_on_conflict
from inturn.persistence.schema_versions import SchemaVersions
from inturn.session.state import Message, RouteRef, SessionState, Status, StepRef

T = TypeVar("T")
Q = TypeVar("Q", SessionQuery, MessageQuery)

_KEPT_BY_THE_STORE = frozenset(
    {
        "id",
        "history",
        "history_start",
        "message_count",
        "last_message_at",
        "created_at",
        "updated_at",
        "version",
    }
)


class SessionRepository:
    """Sessions by ID and by user. What is returned carries no history: messages are rows of their own.

    With `user_id` it is that user's repository: sessions of others, or of nobody, do not exist for it.
    Updates load, change and commit, and are repeated when another writer came between: neither update is
    lost. They raise `SessionNotFoundError` for a session that does not exist; finds return None. With
    `schema` sessions are brought to its version, except in lists, which show them as they are stored.
    """

    def __init__(
        self,
        adapter: PersistenceAdapter,
        *,
        user_id: str | None = None,
        schema: SchemaVersions | None = None,
    ) -> None:
        self._adapter = adapter
        self._user_id = user_id
        self._schema = SchemaVersions() if schema is None else schema

    def sees(self, session: SessionState) -> bool:
        """Tell whether the session exists for this repository's user."""
        return self._user_id in (None, session.user_id)

    def create(self, session: SessionState) -> SessionState:
        """Save a new session; raises `SessionConflictError` if its ID is taken."""
        if self._user_id is not None and session.user_id is None:
            session = session.model_copy(update={"user_id": self._user_id})
        self._check(session)
        return self._adapter.commit(self._schema.stamp(session), expected_version=0).session

    def find_by_id(self, session_id: str) -> SessionState | None:
        """Find a session."""
        found = self.find_stored(session_id)
        return None if found is None else self._schema.present(found)

    def find_stored(self, session_id: str) -> SessionState | None:
        """Find a session as it is stored, whatever its schema version."""
        found = self._adapter.load(session_id)
        return found.session if found is not None and self.sees(found.session) else None

    def find_active_by_user_id(self, user_id: str) -> SessionState | None:
        """Find the active session of a user that was changed last."""
        found = self.find_by_user_id(user_id, limit=1, status="active")
        return self._schema.present(found[0]) if found else None

    def find_by_user_id(
        self,
        user_id: str,
        *,
        limit: int | None = 100,
        status: Status | None = None,
        older_than: datetime | None = None,
    ) -> list[SessionState]:
        """List a user's sessions, last changed first; `older_than` is the time of that change, exclusive.

        `limit=None` lists all of them.
        """
        query = SessionQuery(user_id=user_id, status=status, older_than=older_than)
        found = _collect(self._adapter.find_sessions, query, limit)
        return found if self._user_id in (None, user_id) else []

    def update(
        self, session_id: str, data: Mapping[str, Any], *, expected_version: int | None = None
    ) -> SessionState:
        """Set fields of a session; those the store keeps itself (version, counts, times) are refused.

        With `expected_version` the session is changed only if it still has that version: else
        `SessionConflictError`.
        """
        fields = SessionState.model_fields.keys() - _KEPT_BY_THE_STORE
        if refused := data.keys() - fields:
            raise InvalidInputError(f"these fields of a session cannot be set: {', '.join(sorted(refused))}")

        def edit(session: SessionState) -> None:
            if expected_version not in (None, session.version):
                raise SessionConflictError(session_id, expected_version, session.version)
            for name, value in data.items():
                setattr(session, name, value)

        if expected_version is None:
            return self.change(session_id, edit).session
        return self._change_once(session_id, edit).session

    def update_status(
        self, session_id: str, status: Status, completed_at: datetime | None = None
    ) -> SessionState:
        """Set the status; `completed` is stamped with `completed_at` or now."""
        return self.change(session_id, lambda session: session.set_status(status, completed_at)).session

    def update_collected_data(self, session_id: str, patch: Mapping[str, Any]) -> SessionState:
        """Merge `patch` into the collected data: keys it does not name, and the history, stay."""
        if not isinstance(patch, Mapping):
            raise InvalidInputError(f"data must be a mapping, not {type(patch).__name__}")
        return self.change(session_id, lambda session: session.data.update(patch)).session

    def update_route_step(
        self, session_id: str, route: str | None = None, step: str | None = None
    ) -> SessionState:
        """Move a session to a route and a step of it, by their IDs; None leaves the route, or the step."""
        if step is not None and route is None:
            raise InvalidInputError("a step belongs to a route: give both")

        def edit(session: SessionState) -> None:
            if route is None:
                session.leave_route()
            elif session.current_route is None or session.current_route.id != route:
                session.enter_route(RouteRef(id=route))
            session.current_step = None if step is None else StepRef(id=step)

        return self.change(session_id, edit).session

    def delete(self, session_id: str, *, expected_version: int | None = None) -> bool:
        """Delete a session with its messages; False if there was none, or none of `expected_version`."""
        if self._user_id is not None and self.find_stored(session_id) is None:
            return False
        return bool(self._adapter.delete_sessions([Target(session_id, expected_version)]))

    def change(self, session_id: str, edit: Callable[[SessionState], Sequence[Message] | None]) -> Committed:
        """Load a session, let `edit` change it and name messages to append, and commit.

        Another writer came between: all of it is done again on the new state, so `edit` may run several
        times and must have no effect elsewhere.
        """
        return repeat_on_conflict(lambda: self._change_once(session_id, edit))

    def _change_once(
        self, session_id: str, edit: Callable[[SessionState], Sequence[Message] | None]
    ) -> Committed:
        session = self.find_by_id(session_id)
        if session is None:
            raise SessionNotFoundError(session_id)
        version = session.version
        messages = edit(session) or ()
        self._check(session)  # it is not given away either
        return self._adapter.commit(session, messages, expected_version=version)

    def _check(self, session: SessionState) -> None:
        if not self.sees(session):
            raise SessionAccessError(session.id, self._user_id)


class MessageRepository:
    """The messages of sessions and users.

    Messages are not found by their ID, for which no backend needs an index, and not deleted one by one: a
    history is append-only, and its sequences have no gaps. Deleting the session deletes its messages.
    """

    def __init__(
        self,
        adapter: PersistenceAdapter,
        *,
        user_id: str | None = None,
        schema: SchemaVersions | None = None,
    ) -> None:
        self._adapter = adapter
        self._user_id = user_id
        self._sessions = SessionRepository(adapter, user_id=user_id, schema=schema)

    def create(self, message: Message) -> Message:
        """Append a message to its session, and return it with its sequence.

        It belongs to the session's user unless it names one. Raises `SessionNotFoundError`, and in a user's
        repository `SessionAccessError` for a message in another's name.
        """
        if self._user_id is not None and message.user_id not in (None, self._user_id):
            raise SessionAccessError(message.session_id, self._user_id)

        def edit(session: SessionState) -> list[Message]:
            return [message.model_copy(update={"user_id": message.user_id or session.user_id})]

        return self._sessions.change(message.session_id, edit).messages[0]

    def find_by_session_id(
        self, session_id: str, *, limit: int | None = 1000, after: int | None = None
    ) -> list[Message]:
        """List the newest `limit` messages of a session (None: all), oldest first.

        With `after` only those of a larger sequence.
        """
        if self._user_id is not None and self._sessions.find_stored(session_id) is None:
            return []
        query = MessageQuery(session_id=session_id, after=after, order="newest")
        return _collect(self._adapter.find_messages, query, limit)[::-1]

    def find_by_user_id(self, user_id: str, *, limit: int | None = 100) -> list[Message]:
        """List a user's messages over all sessions, newest first (`limit=None`: all)."""
        query = MessageQuery(user_id=user_id, order="newest")
        found = _collect(self._adapter.find_messages, query, limit)
        return found if self._user_id in (None, user_id) else []


def _collect(find: Callable[[Q], Page[T]], query: Q, limit: int | None) -> list[T]:
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InvalidInputError(f"limit must be a number above 0, or None for all, not {limit!r}")
    items: list[T] = []
    while True:
        room = MAX_PAGE if limit is None else min(MAX_PAGE, limit - len(items))
        page = find(replace(query, limit=room))
        items += page.items
        if page.cursor is None or len(items) == limit:
            return items
        query = replace(query, cursor=page.cursor)
