"""Runtime: what one web process holds: connections, who may do what, and the turns that are watched."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Depends, Request

from inturn.channels import load_channels
from inturn.client import Client
from inturn.errors import MailboxError
from inturn.settings import Settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect
from inturn.turns.dead_letters import DeadLetters
from inturn.turns.deliveries import Deliveries

from .access import Access
from .auth import Gate
from .limits import RateLimits
from .metrics import Metrics
from .store import Store
from .tickets import Tickets
from .watcher import Watcher


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
        metrics.count_readers(lambda: len(self.watcher))
        metrics.count_waiting(self._depth)

    def _depth(self) -> float:
        try:
            return self.mailbox.depth()
        except MailboxError:
            return math.nan

    def close(self) -> None:
        """Give the connections back."""
        self.store.close()
        self.client.close()
        self.redis.close()


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


Web = Annotated[Runtime, Depends(_runtime)]
"""The runtime of the process that handles a request."""
