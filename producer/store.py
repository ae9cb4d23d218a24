"""Store: the sessions as the web application reads them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from inturn.errors import StoreError, StoreUnavailableError
from inturn.persistence import PersistenceAdapter
from inturn.persistence.opening import open_store
from inturn.settings import Settings

MOST_AT_ONCE = 24
"""Threads that may be in the store at the same time, of the 40 that handle requests: while the database is
away each of them is held for seconds, and what needs no database must go on."""
PATIENCE = 1.0
"""Seconds to wait for a place; a database that lets one wait longer and then fails counts as away."""
RETRY_SECONDS = 2.0
"""How often one request tries whether a database that was away is back; the others are refused meanwhile."""


class Store:
    """One adapter for all threads, opened when it is first used: the application starts without it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._adapter: PersistenceAdapter | None = None
        self._opening = threading.Lock()
        self._places = threading.BoundedSemaphore(min(settings.database_pool, MOST_AT_ONCE))
        self._is_away = False
        self._next_try = 0.0

    @contextmanager
    def use(self) -> Iterator[PersistenceAdapter]:
        """Give the adapter; raises `StoreUnavailableError`, at once where others have just waited in vain."""
        began = time.monotonic()
        if self._is_away and began < self._next_try:
            raise StoreUnavailableError("the database is away; repeat the request")
        self._next_try = began + RETRY_SECONDS
        if not self._places.acquire(timeout=PATIENCE):
            raise StoreUnavailableError("the database does not answer in time; repeat the request")
        try:
            yield self._ready()
            self._is_away = False
        except StoreUnavailableError:
            self._is_away = self._is_away or time.monotonic() - began > PATIENCE
            raise
        finally:
            self._places.release()

    def close(self) -> None:
        """Give the connections back."""
        if self._adapter is not None:
            self._adapter.close()

    def _ready(self) -> PersistenceAdapter:
        if self._adapter is None:
            if not self._opening.acquire(timeout=PATIENCE):
                raise StoreUnavailableError("the database is not there yet; repeat the request")
            try:
                self._adapter = self._adapter or self._opened()
            finally:
                self._opening.release()
        return self._adapter

    def _opened(self) -> PersistenceAdapter:
        adapter = open_store(self._settings)
        try:
            adapter.initialize()
        except StoreError as error:
            adapter.close()
            # As in the workers: somebody will mend it, and the request may be repeated then.
            raise StoreUnavailableError(str(error)) from error
        except BaseException:
            adapter.close()
            raise
        return adapter
