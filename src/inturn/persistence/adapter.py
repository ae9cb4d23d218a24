"""The contract of every persistence backend: eight primitives, three more for some, and what they promise.

Everything else (repositories, the persistence manager, the session manager) is built once, above these.
`inturn.testing.conformance` checks an implementation against every sentence below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar

from inturn.errors import StoreError
from inturn.session.state import Message, SessionState, Status, TurnRecord

if TYPE_CHECKING:
    from inturn.persistence.repositories import MessageRepository, SessionRepository

T = TypeVar("T")

MAX_PAGE = 1000
"""The most items one page may have; a larger `limit` is an `InvalidInputError`."""


class Loaded(NamedTuple):
    """What `load` found: the session, its newest messages oldest first, and the turn if it was committed."""

    session: SessionState
    messages: list[Message]
    turn: TurnRecord | None


class Committed(NamedTuple):
    """What `commit` did.

    `repeated` tells that the turn was there already: nothing was written, `turn` is the record in the store
    and `session` is the session as it was given.
    """

    session: SessionState
    messages: list[Message]
    turn: TurnRecord | None
    repeated: bool = False


class Recorded(NamedTuple):
    """What `recorded` found: a session's version (0: there is no such session), and those of the turns that
    were committed."""

    version: int
    turn_ids: frozenset[str]


class Page(NamedTuple, Generic[T]):
    """Items, and the cursor of the next page (None: there is none)."""

    items: list[T]
    cursor: str | None = None


class Target(NamedTuple):
    """A session to delete: only if it still has this version, or whatever its version if that is None."""

    session_id: str
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionQuery:
    """Which sessions: every field given must match. Times compare with `updated_at`, exclusively.

    Of a session that cannot be read, for its key is not here or somebody else's hand was in it, a list raises
    `StoreError`; with `unreadable` an `UnreadableSession` stands in its place, for those who go through all
    sessions and must not end at one.
    """

    user_id: str | None = None
    agent_name: str | None = None
    status: Status | None = None
    older_than: datetime | None = None
    newer_than: datetime | None = None
    order: Literal["newest", "oldest"] = "newest"
    cursor: str | None = None
    limit: int = 100
    unreadable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageQuery:
    """Which messages: of one session (ordered by sequence) or of one user (ordered by time, then ID).

    Exactly one of `session_id` and `user_id` is given. `after` and `before` are sequences, both
    exclusive, and go with `session_id` only.
    """

    session_id: str | None = None
    user_id: str | None = None
    after: int | None = None
    before: int | None = None
    order: Literal["newest", "oldest"] = "oldest"
    cursor: str | None = None
    limit: int = 100


class PersistenceAdapter(ABC):
    """One persistence backend.

    Construction takes a client, engine or pool, which stays the caller's to close, or a URL, for which the
    adapter opens its own and closes it in `close()`. Adapters are safe to share between threads; after a
    fork each process opens its own.

    Driver errors never leave an adapter: they become `StoreError`, or `StoreUnavailableError` where the
    same call may succeed later. Values no backend could keep alike (NUL, lone surrogates, NaN) raise
    `InvalidInputError` before anything is written; see `inturn.persistence.rows`.
    """

    supports_expiry: ClassVar[bool] = False
    """Whether sessions can expire by themselves."""
    supports_search: ClassVar[bool] = False
    """Whether messages can be searched by their words."""
    supports_rewriting: ClassVar[bool] = False
    """Whether what is stored can be put in other words in its place: `find_turns` and `rewrite`."""
    durable: ClassVar[bool] = True
    """Whether what was committed is there for another process, and after a restart."""

    @abstractmethod
    def initialize(self) -> None:
        """Create what the backend needs (tables, indexes) where it is missing; safe to repeat and to race."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the adapter itself opened; safe to repeat."""

    @abstractmethod
    def ping(self) -> None:
        """Return if the backend answers, else raise `StoreUnavailableError`."""

    @abstractmethod
    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """Read a session with its `last_messages` newest messages, in one round trip; None if there is none.

        With `turn_id` also that turn's record, if it was committed. What is returned is one consistent
        state: never the session of one commit with the messages of another. The cost does not grow with
        the session's length.
        """

    @abstractmethod
    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        """Save a session, append its new messages and remember the turn: all of it or nothing.

        - `expected_version` is the version the caller loaded; 0 creates the session. The store's version is
          another (or the session is gone, or already there): `SessionConflictError`, and nothing is written.
        - `turn.turn_id` was committed for this session before: nothing is written, no error, and the
          stored record is returned with `repeated` set. This is checked before the version.
        - A message ID is used once: one that is stored already, in any session, is an `InvalidInputError`.
          So is a `message_count` that is not the store's: it is not the caller's to set.
        - Messages get the sequences after `session.message_count`, in the order given. `version` grows by
          one, `message_count` by their number, `updated_at` becomes now and never goes back,
          `last_message_at` becomes the last message's time. The arguments are not changed: the new state is
          in what is returned.
        """

    def recorded(self, session_id: str, turn_ids: Sequence[str]) -> Recorded:
        """Tell a session's version, and which of these turns were committed for it.

        The version is not newer than what is told of the turns. One round trip, where an adapter has a way
        of its own; without one it loads as often as there are turns.
        """
        version, committed = 0, set[str]()
        for turn_id in turn_ids:
            found = self.load(session_id, turn_id=turn_id)
            if found is None:
                break
            version = version or found.session.version
            if found.turn is not None:
                committed.add(turn_id)
        return Recorded(version, frozenset(committed))

    @abstractmethod
    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """List sessions by `updated_at`, then ID; pages neither skip nor repeat an unchanged session."""

    @abstractmethod
    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """List messages; pages neither skip nor repeat."""

    @abstractmethod
    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """Delete sessions with their messages and turns; returns the IDs that are gone by this call.

        A target with a version is left alone if the session has changed since.
        """

    def find_turns(
        self,
        session_id: str,  # noqa: ARG002
        *,
        cursor: str | None = None,  # noqa: ARG002
        limit: int = 100,  # noqa: ARG002
    ) -> Page[TurnRecord]:
        """List the records of a session's turns, in any order that stays; only with `supports_rewriting`.

        Each has for its ID what its turn is found by in the store (`inturn.persistence.rows.turn_key`).
        """
        raise self._cannot_rewrite()

    def rewrite(
        self,
        session: SessionState | None = None,  # noqa: ARG002
        messages: Sequence[Message] = (),  # noqa: ARG002
        turns: Sequence[TurnRecord] = (),  # noqa: ARG002
    ) -> int:
        """Put other content in the place of what is stored; only with `supports_rewriting`.

        Of the session, if the store's has this version still: all that is neither an ID, a status, a route,
        a step, a time nor a count. Of each message, found by its ID and its session: `content`, `name`,
        `tool_calls` and `event`. Of each turn its result. What is gone is left out, nothing else changes, and
        whoever runs a turn meanwhile meets no conflict. Each row is changed in one step; a call that is
        repeated does the same. Returns how many rows were there to be changed.

        All of it must be of one session. This is for those who change how things are kept, and not what they
        say, such as a rotation of keys.
        """
        raise self._cannot_rewrite()

    def _cannot_rewrite(self) -> StoreError:
        return StoreError(f"{type(self).__name__} cannot change in place what it keeps")

    @property
    def session_repository(self) -> SessionRepository:
        """The seed's repository of sessions, over this adapter."""
        from inturn.persistence.repositories import SessionRepository  # it stands above this module

        return SessionRepository(self)

    @property
    def message_repository(self) -> MessageRepository:
        """The seed's repository of messages, over this adapter."""
        from inturn.persistence.repositories import MessageRepository  # it stands above this module

        return MessageRepository(self)

    def __enter__(self) -> Self:
        try:
            self.initialize()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
