"""Inbox: what the database accepted is in the mailbox, in its order, whatever Redis has lost."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import structlog

from inturn.turns import Mailbox
from inturn.turns.overlap import Overlap

if TYPE_CHECKING:
    from inturn.persistence.inbox import Inbox

log = structlog.get_logger(__name__)

PAGE = 500


class InboxKeeper:
    """Puts turns that the inbox has, and the mailbox has not, where they belong.

    Two look for them. Whoever drives a session asks before each turn whether an earlier one was accepted
    (`is_next`), so order holds however much of Redis is gone. And a thread of every worker process looks for
    sessions that have no mailbox any more: among the turns that were there when it last looked, so that
    none is taken from a producer that is about to offer it.
    """

    def __init__(self, inbox: Inbox, mailbox: Mailbox, every: float) -> None:
        self._inbox = inbox
        self._mailbox = mailbox
        self._every = every
        self._newest = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start looking; ends with the process."""
        self._thread = threading.Thread(target=self._run, name="inturn-inbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def restore(self, session_id: str) -> bool:
        """Bring a session's mailbox up to the inbox; False: somebody drives it, and will see for themselves.

        Nothing is published: where another turn is the head now, the session is due with the next sweep.
        """
        turns = self._inbox.turns(session_id)
        done = self._mailbox.restore(
            session_id, [(turn.turn_id, turn.payload, Overlap(*turn.overlap)) for turn in turns]
        )
        if done is None:
            return False
        # Their owner died before it could take them out.
        self._inbox.remove(session_id, done)
        return True

    def look(self) -> int:
        """Look once; returns how many sessions had lost their mailbox."""
        newest, self._newest = self._newest, self._inbox.newest()
        found, after = 0, ""
        while newest and (sessions := self._inbox.sessions(newest, after=after, limit=PAGE)):
            after = sessions[-1]
            for session_id in sorted(set(sessions) - self._mailbox.waiting(sessions)):
                found += self.restore(session_id)
        if found:
            log.warning("turns restored from the inbox", sessions=found)
        return found

    def _run(self) -> None:
        # Jitter spreads the processes of a fleet over the interval.
        pause = self._every
        while not self._stopped.wait(pause * random.uniform(0.7, 1.0)):
            began = time.monotonic()
            try:
                self.look()
            except Exception as error:
                # Whatever it is (Redis away, database away), the next look tries again.
                log.warning("inbox not looked through", error=f"{type(error).__name__}: {error}")
            # However much waits, looking at it is a small part of what this process does.
            pause = max(self._every, 20 * (time.monotonic() - began))
