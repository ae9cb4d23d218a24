"""Watch: one reader of one turn, and the events that are new for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from time import monotonic
from typing import Any, Literal, NamedTuple

from inturn.contract import TurnResult
from inturn.turns import Follower, Place, Sight, TurnView
from inturn.turns.streams import MOST_READ

from .views import view_turn

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.25
"""Seconds until a turn is looked at again: the first after something came, growing to the other."""
MOST_UNREAD = 100
"""Events that may wait for a slow reader before its turn is looked at again."""
GONE_SECONDS = 10.0
"""How long a turn that has left the mailbox may be without a result: whoever drops one stores that last."""

LAST_ID = "done"
"""The ID of the last event: who has it has everything."""


class Event(NamedTuple):
    """What a reader is told; with `id` one may go on behind it."""

    kind: Literal["state", "piece", "done", "failed"]
    data: dict[str, Any]
    id: str | None = None


class Watch:
    """What one reader has of a turn. It is given sights and makes events of them, in the event loop only."""

    def __init__(self, session_id: str, turn_id: str, after: str = "") -> None:
        self._place = Place(session_id, turn_id)
        self._follower = Follower(after)
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._view: TurnView | None = None
        self._gone_since: float | None = None
        self._pause = FIRST_PAUSE
        self._next_look = 0.0
        self.result: TurnResult | None = None
        """How the turn has ended."""
        self.is_over = False
        """Whether nothing more will come."""

    @property
    def place(self) -> Place:
        """What to look at next."""
        return self._place

    @property
    def next_look(self) -> float:
        """When, on the monotonic clock; infinity: not before the reader has taken what there is."""
        return float("inf") if self.is_over or len(self._events) >= MOST_UNREAD else self._next_look

    async def next_event(self, timeout: float) -> Event | None:
        """The next event; None if none comes within `timeout` seconds, or ever."""
        if not self._events and not self.is_over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout)
        self._changed.clear()
        return self._events.popleft() if self._events else None

    async def end(self, timeout: float) -> TurnResult | None:
        """Wait for the end of the turn, at most `timeout` seconds."""
        deadline = monotonic() + timeout
        while not self.is_over and (left := deadline - monotonic()) > 0:
            await self.next_event(left)
        return self.result

    def see(self, sight: Sight) -> None:
        """Make events of what there is now."""
        news = self._see(sight)
        self._pause = FIRST_PAUSE if news else min(self._pause * 1.5, LONGEST_PAUSE)
        self._next_look = monotonic() + self._pause

    def stop(self) -> None:
        """Nothing more will come, although the turn goes on: the reader is to come again."""
        self.is_over = True
        self._changed.set()

    def fail(self, reason: str) -> None:
        """Nobody can say how the turn ends."""
        place = self._place
        turn = {
            "session_id": place.session_id,
            "turn_id": place.turn_id,
            "status": "unknown",
            "error": reason,
        }
        self._tell(Event("failed", turn, LAST_ID))
        self.stop()

    def _see(self, sight: Sight) -> bool:
        if self.is_over:
            return False
        if sight.result is None and sight.view != self._view and sight.view.state in ("waiting", "running"):
            self._view = sight.view
            self._tell(Event("state", _state(sight.view)))
        for entry in sight.entries:
            self._place = self._place._replace(after=entry.id)
            piece = self._follower.take(entry)
            if piece is not None:
                self._tell(_piece(piece.text, restarts=piece.restarts, id=piece.id))
        if sight.result is not None and len(sight.entries) < MOST_READ:
            self._end(sight, sight.result)
        elif sight.result is None and sight.view.state in ("done", "unknown"):
            self._gone_since = self._gone_since or monotonic()
            if monotonic() - self._gone_since > GONE_SECONDS:
                self.fail("the turn is over and its result is gone")
        return bool(sight.entries)

    def _end(self, sight: Sight, result: TurnResult) -> None:
        self.result = result
        if result.error is None:
            piece = self._follower.close(result.response.message)
            if piece is not None:
                self._tell(_piece(piece.text, restarts=piece.restarts, id=piece.id))
        turn = view_turn(self._place.session_id, self._place.turn_id, sight)
        kind: Literal["done", "failed"] = "done" if result.error is None else "failed"
        self._tell(Event(kind, turn.model_dump(mode="json"), LAST_ID))
        self.stop()

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        self._changed.set()


def _state(view: TurnView) -> dict[str, Any]:
    return {"status": view.state, "ahead": view.ahead}


def _piece(text: str, *, restarts: bool, id: str) -> Event:
    return Event("piece", {"text": text, "restarts": restarts}, id)
