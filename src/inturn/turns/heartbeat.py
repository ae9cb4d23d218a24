"""Heartbeat: one thread per process that renews all its leases in one pipeline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from inturn.errors import MailboxError
from inturn.turns.lease import Lease
from inturn.turns.mailbox import Mailbox

log = structlog.get_logger(__name__)


class Heartbeat:
    """Keeps every lease alive that is `held`.

    Start it after a fork, in the process that does the work: a parent must not keep a dead child's leases
    alive. Code that blocks the interpreter stops renewal; that is safe, because a lapsed lease is never
    revived and the store refuses what a stale owner writes.
    """

    def __init__(self, mailbox: Mailbox, every: float) -> None:
        self._mailbox = mailbox
        self._every = every
        self._leases: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start renewing; ends with the process."""
        self._thread = threading.Thread(target=self._run, name="inturn-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; leases still held lapse."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    @contextmanager
    def hold(self, lease: Lease) -> Iterator[None]:
        """Renew `lease` while the block runs."""
        with self._lock:
            self._leases[lease.token] = lease
        try:
            yield
        finally:
            with self._lock:
                del self._leases[lease.token]

    def beat(self) -> None:
        """Renew all leases once."""
        with self._lock:
            leases = [lease for lease in self._leases.values() if not lease.lost]
        self._mailbox.renew_all(leases)
        lost = [lease for lease in leases if lease.lost]
        if lost:
            # One that its owner has just given back looks the same to a renewal, but is gone in a moment.
            self._stopped.wait(0.05)
        for lease in lost:
            if lease.token in self._leases:
                log.warning("lease lost", session_id=lease.session_id, fence=lease.fence)

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self.beat()
            except MailboxError as error:
                log.warning("leases not renewed", error=str(error))
            except Exception:
                # The thread must outlive any single failure: without it every long turn loses its lease.
                log.exception("leases not renewed")
