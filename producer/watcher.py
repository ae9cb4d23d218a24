"""Watcher: looks at all turns that somebody reads, together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import structlog
from anyio import CapacityLimiter, to_thread

from inturn.client import Client
from inturn.errors import MailboxUnavailableError
from inturn.turns import Sight

from .watch import Watch

log = structlog.get_logger(__name__)

MOST_WATCHES = 1000
"""Readers that one process takes on: event streams, and requests that wait for a reply."""
MOST_OF_ONE_USER = 50
"""Readers one signed-in user may have of them."""
TICK = 0.04
"""Seconds between two looks, at the least: text comes at most every 50 ms."""
OUTAGE_PAUSE = 1.0


class Watcher:
    """Asks Redis for all watched turns in three round trips, with one thread, however many they are.

    So a reader costs an entry in a set, and not a thread and a connection. While nobody reads, nothing is
    asked. While Redis is away the readers wait; it is for their own patience to end that.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watches: set[Watch] = set()
        self._by_user: Counter[str] = Counter()
        self._anybody = asyncio.Event()
        self._thread = CapacityLimiter(1)
        self._closed = False

    def __len__(self) -> int:
        return len(self._watches)

    def has_room(self, user_id: str | None) -> bool:
        """Whether one more reader may come, of this user or of a trusted caller."""
        mine = 0 if user_id is None else self._by_user[user_id]
        return not self._closed and len(self) < MOST_WATCHES and mine < MOST_OF_ONE_USER

    @contextmanager
    def watching(self, watch: Watch, user_id: str | None) -> Iterator[Watch]:
        """Look at a watch's turn again and again, for as long as this lasts."""
        if self._closed:
            watch.stop()
        self._watches.add(watch)
        self._by_user.update([user_id] if user_id is not None else [])
        self._anybody.set()
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            if user_id is not None:
                self._by_user -= Counter([user_id])
            if not self._watches:
                self._anybody.clear()

    async def run(self) -> None:
        """Look, until the task is cancelled."""
        while True:
            await self._anybody.wait()
            now = monotonic()
            due = [watch for watch in self._watches if watch.next_look <= now]
            try:
                for watch, sight in zip(due, await self._look(due), strict=True):
                    watch.see(sight)
            except MailboxUnavailableError as error:
                log.warning("turns cannot be watched", readers=len(self), error=str(error))
                await asyncio.sleep(OUTAGE_PAUSE)
            except Exception as error:
                log.error("turns cannot be watched together", error=type(error).__name__)
                await self._look_one_by_one(due)
            await asyncio.sleep(TICK)

    def close(self) -> None:
        """Let all readers go, so that they come again, to another process."""
        self._closed = True
        for watch in self._watches:
            watch.stop()

    async def _look(self, watches: list[Watch]) -> list[Sight]:
        places = [watch.place for watch in watches]
        if not places:
            return []
        return await to_thread.run_sync(self._client.look, places, limiter=self._thread)

    async def _look_one_by_one(self, watches: list[Watch]) -> None:
        # One turn whose result nobody can read must not blind the readers of all others.
        for watch in watches:
            try:
                watch.see(*await self._look([watch]))
            except MailboxUnavailableError:
                return
            except Exception as error:
                log.error("a turn cannot be watched", turn_id=watch.place.turn_id, error=type(error).__name__)
                watch.fail("the turn's result cannot be read")
