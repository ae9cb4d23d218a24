"""WrappingAdapter: an adapter that has another one do all of it, for those that change a part."""

from __future__ import annotations

from collections.abc import Sequence

from inturn.persistence.adapter import (
    Committed,
    Loaded,
    MessageQuery,
    Page,
    PersistenceAdapter,
    Recorded,
    SessionQuery,
    Target,
)
from inturn.session.state import Message, SessionState, TurnRecord


class WrappingAdapter(PersistenceAdapter):
    """`inner` does everything; override what is to be otherwise.

    What callers may expect of it is what `inner` can do (its `supports_...` and `durable`), but for those
    flags that are given. `inner` is closed with this adapter, which owns it.
    """

    def __init__(self, inner: PersistenceAdapter, **flags: bool) -> None:
        self.inner = inner
        # Of the object, for its class cannot know them.
        vars(self).update(
            {
                "supports_expiry": inner.supports_expiry,
                "supports_search": inner.supports_search,
                "supports_rewriting": inner.supports_rewriting,
                "durable": inner.durable,
                **flags,
            }
        )

    def initialize(self) -> None:
        """See `PersistenceAdapter.initialize`."""
        self.inner.initialize()

    def close(self) -> None:
        """See `PersistenceAdapter.close`."""
        self.inner.close()

    def ping(self) -> None:
        """See `PersistenceAdapter.ping`."""
        self.inner.ping()

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """See `PersistenceAdapter.load`."""
        return self.inner.load(session_id, last_messages=last_messages, turn_id=turn_id)

    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        """See `PersistenceAdapter.commit`."""
        return self.inner.commit(session, messages, expected_version=expected_version, turn=turn)

    def recorded(self, session_id: str, turn_ids: Sequence[str]) -> Recorded:
        """See `PersistenceAdapter.recorded`."""
        return self.inner.recorded(session_id, turn_ids)

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        return self.inner.find_sessions(query)

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`."""
        return self.inner.find_messages(query)

    def find_turns(self, session_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[TurnRecord]:
        """See `PersistenceAdapter.find_turns`."""
        if not self.supports_rewriting:
            raise self._cannot_rewrite()
        return self.inner.find_turns(session_id, cursor=cursor, limit=limit)

    def rewrite(
        self,
        session: SessionState | None = None,
        messages: Sequence[Message] = (),
        turns: Sequence[TurnRecord] = (),
    ) -> int:
        """See `PersistenceAdapter.rewrite`."""
        if not self.supports_rewriting:
            raise self._cannot_rewrite()
        return self.inner.rewrite(session, messages, turns)

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`."""
        return self.inner.delete_sessions(targets)
