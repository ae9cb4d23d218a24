"""SteppingClock: this process's clock of the day jumps by minutes; the machine's monotonic clock does not."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

import inturn.session.state
from tests.faults.control import Control

MOST_STAMPS = 10_000


class SteppingClock:
    """What `time.time` and `utcnow` say from now on, in every module that has them.

    The clocks that are written in C stay as they are: of what matters here only Celery's and kombu's use of
    `datetime.now`, for the events.
    """

    def __init__(self, control: Control, *, every: float, most: float) -> None:
        self._control = control
        self._every = every
        self._most = most
        self._offset = 0.0
        self._real = time.time
        self._stamps: OrderedDict[datetime, datetime] = OrderedDict()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Put it in place; from now on it steps by itself."""
        real = self._real
        for module in list(sys.modules.values()):
            if getattr(module, "time", None) is real:
                setattr(module, "time", self.time)  # noqa: B010  # it is a module of any kind
        clock = self

        class Stepped(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return clock.now(tz)

        # `utcnow` looks its class up there with each call; nothing else of the module does after the import.
        inturn.session.state.datetime = Stepped  # type: ignore[attr-defined, unused-ignore]
        threading.Thread(target=self._step, daemon=True).start()

    def time(self) -> float:
        return self._real() + self._offset

    def now(self, tz: Any) -> datetime:
        true = self._real()
        stamp = datetime.fromtimestamp(true + self._offset, tz or UTC)
        with self._lock:
            self._stamps[stamp] = datetime.fromtimestamp(true, UTC)
            if len(self._stamps) > MOST_STAMPS:
                self._stamps.popitem(last=False)
        return stamp

    def true_time(self, stamp: datetime) -> datetime:
        """What the time really was when this clock said so."""
        with self._lock:
            return self._stamps.get(stamp, stamp)

    def _step(self) -> None:
        while True:
            time.sleep(self._every * random.uniform(0.5, 1.5))
            self._offset = random.uniform(-self._most, self._most)
            self._control.note("step", round(self._offset, 1))
