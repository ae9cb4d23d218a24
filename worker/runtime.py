"""Runtime: what one worker process holds: connections, agent, channels, and the threads beside the work."""

from __future__ import annotations

import mmap
import os
import threading

import structlog
from celery import Celery

from inturn.accepting import open_inbox
from inturn.agent.loading import load_agent
from inturn.channels import load_channels
from inturn.contract import DELIVERY_QUEUE, TURNS_QUEUE
from inturn.errors import StoreError, StoreUnavailableError
from inturn.metrics import count_woken
from inturn.persistence import PersistenceManager
from inturn.persistence.opening import open_store
from inturn.settings import Settings
from inturn.tracing import start_tracing
from inturn.turns import (
    DeadLetters,
    Deliveries,
    Heartbeat,
    Kicked,
    Mailbox,
    ModelBudget,
    Streams,
    StreamWriter,
    Sweeper,
)
from inturn.turns.connection import connect
from inturn.turns.publishing import count_messages, publish_delivery, publish_turn

from .inbox import InboxKeeper
from .processors import OneProcessor, schedule_as_batch
from .results import Results
from .time_limit import TimeLimit

log = structlog.get_logger(__name__)

INBOX_SECONDS = 4.0
"""How often a process looks for sessions that the inbox has and Redis has lost, if it asks for one."""


class _Stopping:
    """A flag that the main process raises and that pool processes, forked before, can see."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._shared[0] = 1

    def __bool__(self) -> bool:
        return self._shared[0] == 1


stopping = _Stopping()
"""True once this worker was asked to shut down: finish the turn in hand, hand over the rest."""


class Runtime:
    """Everything a process opens, opened in that process: nothing here may cross a fork."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.redis = connect(settings)
        self.mailbox = Mailbox(self.redis, settings)
        self.heartbeat = Heartbeat(self.mailbox, settings.renew_seconds)
        self.sweeper = Sweeper(
            self.mailbox,
            self.wake,
            settings.sweep_seconds,
            unless=lambda: stopping,
            queued=lambda: count_messages(app, TURNS_QUEUE),
        )
        self.dead_letters = DeadLetters(self.redis, settings)
        self.deliveries = Deliveries(self.redis, settings)
        self.out_heartbeat = Heartbeat(self.deliveries.mailbox, settings.renew_seconds)
        self.out_sweeper = Sweeper(
            self.deliveries.mailbox,
            self.wake_delivery,
            settings.sweep_seconds,
            unless=lambda: stopping,
            queued=lambda: count_messages(app, DELIVERY_QUEUE),
            name="deliveries",
        )
        self.budget = ModelBudget(self.redis, settings)
        self.streams = StreamWriter(Streams(self.redis, settings))
        self.results = Results(app, settings)
        self.time_limit = TimeLimit(settings.turn_seconds)
        self.agent = load_agent(settings.agent)
        self.channels = load_channels(settings)
        self.adapter = open_store(settings)
        self.persistence = PersistenceManager(
            self.adapter,
            history_window=settings.history_window,
            schema_version=self.agent.schema_version,
            migrate_session=self.agent.migrate_session,
        )
        self.inbox = open_inbox(settings)
        self.keeper = None if self.inbox is None else InboxKeeper(self.inbox, self.mailbox, INBOX_SECONDS)
        self.processor = OneProcessor() if settings.one_processor else None
        self._store_ready = False
        self._end_tracing = start_tracing("worker") if settings.traces_endpoint else None

    def start(self) -> None:
        """Start the threads; the store may still be on its way."""
        schedule_as_batch()
        if self.processor is not None:
            self.processor.start()
        try:
            self.prepare_store()
        except StoreUnavailableError as error:
            log.warning("store not ready; turns wait for it", error=str(error))
        self.heartbeat.start()
        self.out_heartbeat.start()
        self.streams.start()
        if self.keeper is not None:
            self.keeper.start()
        self.sweeper.start()
        self.out_sweeper.start()

    def prepare_store(self) -> None:
        """Create what the store needs, if this process has not seen to it yet.

        Raises `StoreUnavailableError` as long as it cannot be reached, or refuses: somebody will mend it, and
        no turn is to blame.
        """
        if not self._store_ready:
            try:
                self.adapter.initialize()
            except StoreError as error:
                raise StoreUnavailableError(str(error)) from error
            self._store_ready = True

    def close(self) -> None:
        """Stop the threads and give the connections back."""
        if self.processor is not None:
            self.processor.stop()
        self.out_sweeper.stop()
        self.sweeper.stop()
        if self.keeper is not None:
            self.keeper.stop()
        self.streams.stop()
        self.out_heartbeat.stop()
        self.heartbeat.stop()
        self.adapter.close()
        if self.inbox is not None:
            self.inbox.close()
        self.redis.close()
        if self._end_tracing is not None:
            self._end_tracing()

    def wake(self, kicked: Kicked) -> None:
        """Publish the message of a session that a sweep has claimed."""
        count_woken("turns", crashed=kicked.crashed)
        publish_turn(self.app, kicked.session_id, kicked.turn_id, urgent=kicked.crashed)

    def wake_delivery(self, kicked: Kicked) -> None:
        """The same for its out mailbox."""
        count_woken("deliveries", crashed=kicked.crashed)
        publish_delivery(self.app, kicked.session_id, urgent=kicked.crashed)


_lock = threading.Lock()
_runtime: Runtime | None = None
_pid: int | None = None


def current_runtime() -> Runtime:
    """This process's runtime; made, and its threads started, with the first call."""
    global _runtime, _pid
    if _runtime is None or _pid != os.getpid():
        with _lock:
            if _runtime is None or _pid != os.getpid():
                from .celery import app, settings

                runtime = Runtime(app, settings)
                runtime.start()
                _runtime, _pid = runtime, os.getpid()
    return _runtime


def close_runtime() -> None:
    """Close this process's runtime, if it has one."""
    global _runtime
    if _runtime is not None and _pid == os.getpid():
        _runtime.close()
        _runtime = None
