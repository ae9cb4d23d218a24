"""Turnstile: as many callers at once as there are places, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque


class Turnstile:
    """A semaphore that is fair: whoever comes while others wait never overtakes them.

    Those of the standard library, and SQLAlchemy's pools, let a caller in a hurry starve the others.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    def enter(self, timeout: float) -> bool:
        """Take a place; False if there was none in as many seconds."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        if gate.acquire(timeout=timeout):
            return True
        with self._lock:
            if gate not in self._waiting:
                return True  # it was opened in the moment in which we gave up
            self._waiting.remove(gate)
            return False

    def leave(self) -> None:
        """Give the place back: to whoever waits longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
