"""Outbox: one delivery as it stands in its session, changed by compare-and-swap."""

from __future__ import annotations

import random
import time
from typing import Any

from inturn.contract import TurnResult
from inturn.errors import SessionConflictError, StoreUnavailableError
from inturn.persistence import Loaded, PersistenceAdapter
from inturn.persistence.conflicts import repeat_on_conflict
from inturn.session import SessionState
from inturn.session.state import Delivery, utcnow

MOST_OVER = 20
"""Deliveries that are over and that a session keeps; older ones are forgotten with the next that ends."""
PATIENCE = 30.0
"""Seconds for which a change is tried again while the store is away: what it says has happened already."""


class Outbox:
    """A delivery of one session.

    `entry` is as it was last seen or written here, in `session`; `reply` is what is to be sent, None if the
    turn's record is gone. Whoever changes it must have seen its latest state: that, and not the lease of the
    out mailbox, is what keeps two owners from both going on with it. A turn that runs meanwhile is not
    disturbed: what it commits is brought onto this.
    """

    def __init__(self, adapter: PersistenceAdapter, loaded: Loaded, turn_id: str) -> None:
        self._adapter = adapter
        self._turn_id = turn_id
        self.session: SessionState = loaded.session
        self.entry: Delivery = loaded.session.outbox[turn_id]
        self.reply: str | None = None
        if loaded.turn is not None:
            self.reply = TurnResult.model_validate(loaded.turn.result).response.message

    @classmethod
    def open(cls, adapter: PersistenceAdapter, session_id: str, turn_id: str) -> Outbox | None:
        """Read a delivery; None if there is no such session, or it has no such delivery (any more)."""
        # From the adapter itself: a session of any schema version may be told from, as its state is not used.
        loaded = adapter.load(session_id, turn_id=turn_id)
        if loaded is None or turn_id not in loaded.session.outbox:
            return None
        return cls(adapter, loaded, turn_id)

    def change(self, **changes: Any) -> bool:
        """Put the delivery with these changes in the place of `entry`.

        False: somebody else has changed it, or it is gone; nothing was written. `StoreUnavailableError`,
        after half a minute of trying, leaves open whether it was written.
        """
        wanted = self.entry.model_copy(update={**changes, "changed_at": utcnow()})
        seen: list[SessionState] = [self.session]

        def attempt() -> bool:
            session = seen.pop() if seen else self._load()
            found = None if session is None else session.outbox.get(self._turn_id)
            if session is None or found is None:
                return False
            if not _same(found, wanted):  # else an earlier try was written, and its answer lost
                if not _same(found, self.entry):
                    return False
                outbox = _pruned({**session.outbox, self._turn_id: wanted})
                changed = session.model_copy(update={"outbox": outbox})
                session = self._adapter.commit(changed, expected_version=session.version).session
            self.session, self.entry = session, wanted
            return True

        until = time.monotonic() + PATIENCE
        while True:
            try:
                return repeat_on_conflict(attempt)
            except (StoreUnavailableError, SessionConflictError):
                if time.monotonic() > until:
                    raise
                time.sleep(random.uniform(0.2, 0.6))

    def _load(self) -> SessionState | None:
        loaded = self._adapter.load(self.session.id)
        return None if loaded is None else loaded.session


def _same(one: Delivery, other: Delivery) -> bool:
    """Whether both are the same state of a delivery; each state has a time of its own."""
    return (one.changed_at, one.state, one.sent) == (other.changed_at, other.state, other.sent)


def _pruned(outbox: dict[str, Delivery]) -> dict[str, Delivery]:
    over = sorted(
        (turn_id for turn_id, each in outbox.items() if each.is_over),
        key=lambda turn_id: outbox[turn_id].changed_at,
    )
    forgotten = set(over[:-MOST_OVER])
    return {turn_id: each for turn_id, each in outbox.items() if turn_id not in forgotten}
