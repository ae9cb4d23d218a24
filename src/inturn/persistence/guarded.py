"""GuardedAdapter: no turn that was accepted before its session was erased brings anything of it back."""

from __future__ import annotations

import time
from collections.abc import Sequence

from inturn.errors import SessionErasedError
from inturn.persistence.adapter import Committed, PersistenceAdapter, Target
from inturn.persistence.tombstones import SLOW_SECONDS, Tombstones, turn_in_hand
from inturn.persistence.wrapping import WrappingAdapter
from inturn.session.state import Message, SessionState, TurnRecord


class GuardedAdapter(WrappingAdapter):
    """`inner` does everything; a turn's commit is refused where a tombstone is later than the turn.

    The commit of a session that is gone is a conflict in any store, so only two kinds of commits have to be
    looked at: one that makes a session (two short reads more, once in its life), and one of a turn that has
    taken long, for the ID may have been used anew since. Raises `SessionErasedError`, and then nothing is
    left of it. What belongs to no turn (`working_on`) passes.
    """

    def __init__(self, inner: PersistenceAdapter) -> None:
        super().__init__(inner)
        self.tombstones = Tombstones(inner)

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

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`."""
        return self.inner.delete_sessions(targets)
