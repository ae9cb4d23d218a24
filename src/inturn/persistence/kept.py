"""KeptSession: a session as its last turn has left it, so that the next turn of a drive need not load it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from inturn.persistence import rows
from inturn.persistence.adapter import PersistenceAdapter
from inturn.session.state import HistoryItem, SessionState

KEPT_SECONDS = 0.5
"""For how long after its commit a session is taken from memory. With `tombstones.SLOW_SECONDS` it is far less
than an erasure waits between its tombstones and its last look."""


class KeptSession:
    """Memory of whoever takes a session's turns one after another, for as long as they have its lease.

    A turn gets what it would get from the store, at the price of a lookup for many turns at once instead of
    a load for each:

    - Nobody else's commit is overlooked. It makes the turn's own commit a conflict, as one that comes during
      the turn; and what was written before the turn was enqueued is seen, because the session's version is
      compared when the turn's ID is first heard of.
    - A turn that was committed before is not taken again: its ID is looked up first. No other owner can have
      committed it since, for a mailbox hands out its turns in order.
    - What is kept has been through the store's encoding: a date is text, as once it is reloaded.

    Each kept state is for one turn. A commit that is not `keep`t, by whomever, is to be preceded by `forget`.
    """

    def __init__(self) -> None:
        self._row: rows.Row = {}
        self._history: list[HistoryItem] = []
        self._until = 0.0
        self._expected: Sequence[str] = ()
        self._new: frozenset[str] = frozenset()

    def expect(self, turn_ids: Sequence[str]) -> None:
        """Tell which turns will come next, so that they are looked up with the next one that is not known."""
        self._expected = turn_ids

    def keep(self, session: SessionState) -> None:
        """Keep a session as it was just committed, with its history."""
        self._row, self._history = rows.session_row(session), session.history
        self._until = time.monotonic() + KEPT_SECONDS

    def forget(self) -> None:
        """Have the next turn load its session."""
        self._until = 0.0

    def take(self, adapter: PersistenceAdapter, session_id: str, turn_id: str) -> SessionState | None:
        """The session for this turn; None: load it. Raises as `PersistenceAdapter.recorded`."""
        is_kept = time.monotonic() < self._until and self._row["id"] == session_id
        self.forget()
        if not is_kept:
            return None
        if turn_id not in self._new:
            asked = [turn_id, *self._expected]
            found = adapter.recorded(session_id, asked)
            self._new = frozenset(asked) - found.turn_ids
            if turn_id in found.turn_ids or found.version != self._row["version"]:
                return None
        session = rows.session_from_row(self._row)
        session.history = list(self._history)
        return session
