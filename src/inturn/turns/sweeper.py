"""Sweeper: one thread per worker process that wakes the sessions somebody should have acted on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import structlog

from inturn.turns.mailbox import Kicked, Mailbox

log = structlog.get_logger(__name__)


Wake = Callable[[Kicked], None]
"""Publishes the message of a session's head turn, urgently after a crash."""


BACKLOG = 100
"""Messages in the broker, beyond which one that seems lost is likely to be among them."""


class Sweeper:
    """Finds sessions whose owner died (at once, urgently) and whose message was lost (after the grace time).

    It runs in every worker process rather than in beat, because it is what makes a lossy broker safe, and
    must not have a single point of failure. A sweep that finds nothing costs one script for all buckets (in a
    cluster a pipeline of them for each node), however many sessions wait; those that are overdue cost a
    pipeline more, and so does a limit of all turns: with each sweep their number is looked at.
    A process that is about to end leaves it to the others: `unless` is asked before each sweep. `queued` says
    how many messages wait in the broker, and is asked only where sessions are overdue: if they are many, a
    session is not soon woken again. `name` tells in the log what waits in the mailboxes.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        wake: Wake,
        every: float,
        *,
        unless: Callable[[], object] = lambda: False,
        queued: Callable[[], int] = lambda: 0,
        name: str = "turns",
    ) -> None:
        self._mailbox = mailbox
        self._name = name
        self._wake = wake
        self._every = every
        self._unless = unless
        self._queued = queued
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start sweeping; ends with the process."""
        self._thread = threading.Thread(target=self._run, name=f"inturn-sweeper-{self._name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sweeping."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def sweep(self) -> int:
        """Sweep once; returns how many sessions were woken.

        Raises what the first wake-up raised that could not be published; all that were claimed after it are
        given back, and due again with the next sweep.
        """
        self._mailbox.pressure.look()
        woken = 0
        failure: Exception | None = None
        for kicked in self._mailbox.sweep(backlog=lambda: self._queued() > BACKLOG):
            if failure is None:
                try:
                    self._wake(kicked)
                except Exception as error:
                    failure = error
                else:
                    log.info("session woken", waiting=self._name, **kicked._asdict())
                    woken += 1
                    continue
            self._mailbox.unkick(kicked, delay=self._every)
        if failure is not None:
            raise failure
        return woken

    def _run(self) -> None:
        # Jitter spreads the processes of a fleet over the interval.
        while not self._stopped.wait(self._every * random.uniform(0.7, 1.0)):
            if self._unless():
                continue
            try:
                self.sweep()
            except Exception as error:
                # Whatever it is (Redis away, broker away), the next sweep tries again.
                log.warning("sweep failed", waiting=self._name, error=f"{type(error).__name__}: {error}")
