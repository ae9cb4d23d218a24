"""GuardedAdapter: no turn that was accepted before its session was erased brings anything of it back."""

from __future__ import annotations

import time
from collections.abc import Sequence

from inturn.errors import SessionErasedError
from inturn.persistence.adapter import (
    Committed,
    Loaded,
    MessageQuery,
    Page,
    PersistenceAdapter,
    SessionQuery,
    Target,
)
from inturn.persistence.tombstones import SLOW_SECONDS, Tombstones, turn_in_hand
from inturn.session.state import Message, SessionState, TurnRecord


class GuardedAdapter(PersistenceAdapter):
    """`inner` does everything; a turn's commit is refused where a tombstone is later than the turn.

    The commit of a session that is gone is a conflict in any store, so only two kinds of commits have to be
    looked at: one that makes a session (two short reads more, once in its life), and one of a turn that has
    taken long, for the ID may have been used anew since. Raises `SessionErasedError`, and then nothing is
    left of it. What belongs to no turn (`working_on`) passes.

    `inner` is closed with this adapter, which owns it.
    """

    def __init__(self, inner: PersistenceAdapter) -> None:
        self.inner = inner
        self.tombstones = Tombstones(inner)
        # What callers may expect is what the store can do, which its class cannot know.
        vars(self).update(
            supports_expiry=inner.supports_expiry,
            supports_search=inner.supports_search,
            supports_rewriting=inner.supports_rewriting,
            durable=inner.durable,
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
        """See `PersistenceAdapter.commit`; raises `SessionErasedError` too."""
        in_hand = turn_in_hand()
        began = time.monotonic()
        if in_hand is not None and (expected_version == 0 or in_hand.is_slow):
            self.tombstones.check(in_hand, session.id)
        committed = self.inner.commit(session, messages, expected_version=expected_version, turn=turn)
        if in_hand is not None and expected_version == 0 and time.monotonic() - began > SLOW_SECONDS:
            # Long enough for an erasure to have come to its end between our look and our commit.
            try:
                self.tombstones.check(in_hand, session.id)
            except SessionErasedError:
                self.inner.delete_sessions([Target(session.id, committed.session.version)])
                raise
        return committed

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        return self.inner.find_sessions(query)

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`."""
        return self.inner.find_messages(query)

    def find_turns(self, session_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[TurnRecord]:
        """See `PersistenceAdapter.find_turns`."""
        return self.inner.find_turns(session_id, cursor=cursor, limit=limit)

    def rewrite(
        self,
        session: SessionState | None = None,
        messages: Sequence[Message] = (),
        turns: Sequence[TurnRecord] = (),
    ) -> int:
        """See `PersistenceAdapter.rewrite`."""
        return self.inner.rewrite(session, messages, turns)

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`."""
        return self.inner.delete_sessions(targets)
