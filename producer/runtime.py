"""Runtime: what one web process holds: connections, who may do what, and the turns that are watched."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import Depends, Request

from inturn.channels import load_channels
from inturn.client import Client, TurnHandle
from inturn.settings import Settings
from inturn.tracing import start_tracing
from inturn.turns import Mailbox
from inturn.turns.backlog import BacklogReader
from inturn.turns.connection import connect
from inturn.turns.dead_letters import DeadLetters
from inturn.turns.deliveries import Deliveries

from .access import Access
from .auth import Gate
from .console.desk import Desk
from .limits import RateLimits
from .metrics import Metrics
from .store import Store
from .tickets import Tickets
from .watcher import Watcher

log = structlog.get_logger(__name__)


class Runtime:
    """Everything a process opens, opened in that process, after a fork."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.channels = load_channels(settings)
        self.gate = Gate(settings)
        self.redis = connect(settings, timeout=2.0, retries=1)
        self.limits = RateLimits(self.redis, settings)
        self.client = Client(settings)
        self.mailbox = Mailbox(self.redis, settings)
        self.deliveries = Deliveries(self.redis, settings)
        self.dead_letters = DeadLetters(self.redis, settings)
        self.store = Store(settings)
        self.access = Access(self.redis, self.mailbox, self.store, settings)
        self.tickets = Tickets(self.redis, settings)
        self.watcher = Watcher(self.client)
        self.desk = Desk(self.redis, self.store, settings)
        self._end_tracing = start_tracing("web") if settings.traces_endpoint else None
        metrics.count_readers(lambda: len(self.watcher))
        metrics.count_backlog(BacklogReader(self.redis, settings))
        self._end_metrics = metrics.serve(settings)

    def note_accepted(self, handle: TurnHandle, channel: str) -> None:
        """Tell of a turn that was accepted, or was known before: from here on it can be followed."""
        outcome = "new" if handle.accepted else "known"
        self.metrics.accepted.labels(outcome).inc()
        log.info(
            "turn accepted",
            session_id=handle.session_id,
            turn_id=handle.turn_id,
            channel=channel,
            outcome=outcome,
            ahead=handle.ahead,
        )

    def close(self) -> None:
        """Give the connections back."""
        self._end_metrics()
        self.desk.close()
        self.store.close()
        self.client.close()
        self.redis.close()
        if self._end_tracing is not None:
            self._end_tracing()


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


Web = Annotated[Runtime, Depends(_runtime)]
"""The runtime of the process that handles a request."""
