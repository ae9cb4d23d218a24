"""Beat's scheduler."""

from __future__ import annotations

import signal
from typing import Any

from celery.beat import PersistentScheduler

_STOP = {signal.SIGTERM, signal.SIGINT}


class Scheduler(PersistentScheduler):
    """Celery's, but a signal to stop waits until it is made.

    Celery's handler of that signal saves the schedule. While the schedule is still being opened, that would
    open it a second time in the middle of the first, which takes the file for corrupt, or finds modules half
    imported.
    """

    def setup_schedule(self) -> None:
        """Open the schedule's file; signals wait until the first `tick`, when beat knows its scheduler."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        super().setup_schedule()

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due. Returns the seconds until the next."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
        return float(super().tick(*args, **kwargs))
