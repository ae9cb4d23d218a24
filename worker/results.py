"""Results: what a turn ended with, stored under the turn's ID and told to whoever monitors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from celery import Celery, current_task
from celery.app.task import Context

from inturn.contract import RESPOND, SAVE_SESSION, TurnResult
from inturn.envelopes import Envelopes
from inturn.errors import InturnError, SessionAccessError, TurnFailedError
from inturn.settings import Settings

from .asked import REFUSED

log = structlog.get_logger(__name__)


class Results:
    """Stores results in Celery's result backend, so that `AsyncResult(turn_id)` works for every turn.

    That a turn had no message of its own (it waited behind another) makes no difference.
    """

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._envelopes = Envelopes.of(settings)
        self._backend: Any = app.backend
        self.consumer: Any = None
        """Celery's consumer, where it is in the same process (threads, gevent)."""

    def store(self, result: TurnResult, *, own: bool, runtime: float) -> None:
        """Store the end of a turn; `own`: the running Celery task has its ID, so Celery tells of its end."""
        error: InturnError | None = None
        if result.error is not None:
            error = TurnFailedError(f"{result.error.type}: {result.error.message}")
            if result.response.finish_reason == REFUSED:
                error = SessionAccessError(result.session_id)
        value = result.model_dump(mode="json")
        self._store(
            result.turn_id, error or self._envelopes.seal_result(result.session_id, result.turn_id, value)
        )
        if not own or error is not None:
            self._tell(result, error, runtime)

    def refuse(self, turn_id: str, error: InturnError) -> None:
        """Store that a turn was refused before it reached its mailbox."""
        # Celery makes the error anew from its class and its arguments, and not every class of ours lets it.
        failed = TurnFailedError(f"{type(error).__name__}: {error}")
        self._store(turn_id, failed)
        # Of a task that is ignored Celery tells no end.
        self._send([("task-failed", {"uuid": turn_id, "exception": repr(failed), "traceback": ""})])

    def _store(self, turn_id: str, value: Any) -> None:
        status = "FAILURE" if isinstance(value, Exception) else "SUCCESS"
        # A context of its own: Celery would note the running task's children as this turn's.
        self._backend.store_result(turn_id, value, status, request=Context(id=turn_id, children=[]))

    def _tell(self, result: TurnResult, error: Exception | None, runtime: float) -> None:
        # Celery tells of tasks, and this turn is none; without these events Flower would show it as
        # waiting for ever.
        self._send(_events(result, error, runtime))

    def _send(self, events: Sequence[tuple[str, dict[str, Any]]]) -> None:
        try:
            with self._dispatcher() as dispatcher:
                if dispatcher is not None and dispatcher.enabled:
                    for kind, fields in events:
                        dispatcher.send(kind, **fields)
        except Exception as broken:
            # Whatever the broker's client raises: that nobody can watch is no reason to stop.
            log.warning(
                "monitors not told of a turn", turn_id=events[0][1]["uuid"], error=type(broken).__name__
            )

    @contextmanager
    def _dispatcher(self) -> Iterator[Any]:
        if self.consumer is not None:
            # Where turns run beside the consumer, its own dispatcher knows whether anybody listens.
            yield self.consumer.event_dispatcher
        elif self._app.conf.worker_send_task_events and current_task:
            with self._app.events.default_dispatcher(hostname=current_task.request.hostname) as dispatcher:
                yield dispatcher
        else:
            yield None


def _events(result: TurnResult, error: Exception | None, runtime: float) -> list[tuple[str, dict[str, Any]]]:
    name = SAVE_SESSION if result.kind == "save_session" else RESPOND
    common = {"uuid": result.turn_id, "name": name}
    received = {"args": "()", "kwargs": repr({"session_id": result.session_id})}
    if error is None:
        end = ("task-succeeded", {"result": "None", "runtime": runtime, **common})
    else:
        end = ("task-failed", {"exception": repr(error), "traceback": "", **common})
    return [("task-received", {**received, **common}), ("task-started", common), end]
