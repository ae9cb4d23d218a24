"""Workers: which worker processes answer, what they take, and how much they have in hand."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import structlog

from inturn.settings import Settings
from inturn.turns.broker import connect_broker

if TYPE_CHECKING:
    from celery import Celery

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 1.0
"""How long workers may take to answer."""
KEEP_SECONDS = 10.0
"""How long their answers are shown before they are asked again."""


class Worker(NamedTuple):
    """A worker that answered; `in_hand` of at most `most` messages."""

    name: str
    in_hand: int
    most: int
    queues: list[str]


class Workers:
    """Asks all workers by way of the broker, for many pages at once, and not more often than it must."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Celery | None = None
        self._asking = threading.Lock()
        self._seen: list[Worker] | None = None
        self._next = 0.0

    def look(self) -> list[Worker] | None:
        """Those that answered within a second, by name; None: the broker cannot be asked, or not by us."""
        with self._asking:
            if time.monotonic() >= self._next:
                self._seen = self._ask()
                self._next = time.monotonic() + KEEP_SECONDS
            return self._seen

    def close(self) -> None:
        """Give the connections back."""
        if self._app is not None:
            self._app.close()

    def _ask(self) -> list[Worker] | None:
        self._app = self._app or connect_broker(self._settings)
        try:
            replies = self._app.control.broadcast("canary_state", reply=True, timeout=ANSWER_SECONDS)
        except Exception as error:
            # Each broker's driver has errors of its own, and whoever has a Redis user that only puts messages
            # into queues may not ask. The rest of the page is of use all the same.
            log.warning("workers cannot be asked", error=type(error).__name__)
            return None
        said = {name: facts for reply in replies or () for name, facts in reply.items()}
        return [
            Worker(
                name,
                int(facts.get("in_hand", 0)),
                int(facts.get("most", 0)),
                [queue for queue in facts.get("queues", ()) if not queue.startswith("canary.")],
            )
            for name, facts in sorted(said.items())
        ]
