"""TurnStream: the reply of a turn while it is written."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

from inturn.contract import Piece, Response
from inturn.errors import SessionError


class TurnStream(Iterator[Piece]):
    """Yields the pieces of a reply as the model writes them; the turn is committed when they end.

    The first piece has `restarts` set, and so has each piece that makes those before it void (see `Piece`).
    To leave early, call `stop`: what was said until then is committed as an interrupted reply. `close`, or
    leaving the `with` block, abandons the turn instead: nothing of it is kept.
    """

    def __init__(self, turn: Generator[Piece, None, Response], stopped: threading.Event) -> None:
        self._turn = turn
        self._stopped = stopped
        self._response: Response | None = None

    @property
    def response(self) -> Response:
        """The response; `SessionError` before the last piece was read."""
        if self._response is None:
            raise SessionError("the turn has not ended: read its pieces to the end first")
        return self._response

    def stop(self) -> None:
        """End the turn with what was said so far, when the next piece comes; may be called by any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Abandon the turn, if it has not ended."""
        self._turn.close()

    def __next__(self) -> Piece:
        try:
            return next(self._turn)
        except StopIteration as end:
            self._response = self._response or end.value
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
