"""Follower: makes the pieces that one reader gets out of what a turn's stream holds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator
from time import monotonic
from typing import Final

from inturn.contract import Piece, TurnResult
from inturn.errors import InvalidInputError
from inturn.turns.streams import Entry, Streams

WHOLE: Final = "end"
"""The ID of a piece that is the whole reply as the result has it: nothing comes after it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25
"""Seconds between two questions for the result while no text comes: they grow from the one to the other."""


class Follower:
    """Knows what one reader has of a reply, and what it still needs.

    The stream is read from its beginning, also for a reader that resumes behind the piece `after`: only so is
    it known what that reader has. Of a stream with a hole (Redis was restarted, or dropped the oldest
    entries) nothing is handed on until the reply begins anew in it; where it does not, `close` gives the
    whole reply at the end.
    """

    def __init__(self, after: str = "") -> None:
        self._after = _position(after)
        self._parts: list[str] | None = []
        """The reply so far, as the stream has it; None: something is missing."""
        self._in_step = not after
        """Whether the reader has just that."""
        self._shown = bool(after)
        """Whether the reader has anything."""
        self._last: tuple[float, float] = (0, 0)
        self.ended = False
        """Whether the stream is at its end; until there is a result, the reply may still begin anew."""

    def take(self, entry: Entry) -> Piece | None:
        """Read the next entry; gives the piece that the reader gets for it, if any."""
        at: tuple[float, float] = (entry.fence, entry.number)
        if entry.restarts:
            self._parts = []
        elif at != (self._last[0], self._last[1] + 1):
            self._parts = None
        self._last, self.ended = at, entry.ends
        if self._parts is not None:
            self._parts.append(entry.text)
        if at <= self._after:
            self._in_step = at == self._after and self._parts is not None
            return None
        self._in_step = self._parts is not None and (self._in_step or entry.restarts)
        if not self._in_step or not (entry.text or (entry.restarts and self._shown)):
            return None
        piece = Piece(entry.text, restarts=entry.restarts and self._shown, id=entry.id)
        self._shown = True
        return piece

    def close(self, message: str) -> Piece | None:
        """The turn has ended with this reply; gives it as a piece if the reader has anything else."""
        if self._after == _END or (
            self._in_step and self._parts is not None and "".join(self._parts) == message
        ):
            return None
        return Piece(message, restarts=self._shown, id=WHOLE)

    def follow(
        self,
        streams: Streams,
        session_id: str,
        turn_id: str,
        result: Callable[[], TurnResult | None],
        timeout: float | None,
    ) -> Generator[Piece, None, TurnResult | None]:
        """Yield the turn's pieces as they come; return its result, or None after `timeout` quiet seconds.

        `result` is asked once no text comes, and once the stream has ended. The result is stored after the
        last piece was written, so what the stream holds when there is a result is all there will be.
        """
        position, pause = "0", 0.0
        found: TurnResult | None = None
        quiet_since = monotonic()
        while True:
            entries = streams.read(session_id, turn_id, position, wait=pause)
            for entry in entries:
                position = entry.id
                piece = self.take(entry)
                if piece is not None:
                    yield piece
            if entries:
                quiet_since = monotonic()
                if found is None and not self.ended:
                    # More is to come, and its end will be told.
                    pause = LONGEST_PAUSE
                    continue
                pause = 0.0
            elif found is not None:
                if found.error is None and (piece := self.close(found.response.message)) is not None:
                    yield piece
                return found
            found = found or result()
            if found is not None:
                pause = 0.0
                continue
            left = math.inf if timeout is None else quiet_since + timeout - monotonic()
            if left <= 0:
                return None
            pause = min(max(pause * 1.5, FIRST_PAUSE), LONGEST_PAUSE, left)


_END = (math.inf, math.inf)


def _position(after: str) -> tuple[float, float]:
    if not after:
        return (0, 0)
    if after == WHOLE:
        return _END
    if not re.fullmatch(r"\d{1,20}-\d{1,20}", after, re.A):
        raise InvalidInputError("`after` must be the ID of a piece, such as 1700000000000-1, or be empty")
    fence, _, number = after.partition("-")
    return (int(fence), int(number))
