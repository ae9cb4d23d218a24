"""Results: what a turn ended with, stored under the turn's ID and told to whoever monitors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from celery import Celery, current_task
from celery.app.task import Context
from celery.backends.redis import RedisBackend

from inturn.contract import RESPOND, SAVE_SESSION, TurnResult
from inturn.envelopes import Envelopes
from inturn.errors import InturnError, SessionAccessError, SessionErasedError, TurnFailedError
from inturn.settings import Settings
from inturn.turns.results import Kept

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
        self._ms = round(1000 * settings.result_seconds)
        self.with_mailbox = (
            type(self._backend) is RedisBackend
            and not settings.redis_cluster
            and settings.result_backend in (None, settings.redis_url)
        )
        """Whether results are on the server of the mailboxes: then a turn leaves its own as it is stored."""
        self.consumer: Any = None
        """Celery's consumer, where it is in the same process (threads, gevent)."""

    def store(self, result: TurnResult, *, own: bool, runtime: float) -> None:
        """Store the end of a turn; `own`: the running Celery task has its ID, so Celery tells of its end."""
        if result.error is not None and result.error.type == SessionErasedError.__name__:
            # Celery keeps what has succeeded, and with it what was said.
            self._backend.forget(result.turn_id)
        self._store(result.turn_id, self._value(result))
        self.tell(result, own=own, runtime=runtime)

    def kept(self, result: TurnResult) -> Kept:
        """What `Mailbox.finish` is to store, as Celery's backend would; call `tell` afterwards."""
        turn_id, value = result.turn_id, self._value(result)
        status = _status(value)
        meta = self._backend._get_result_meta(
            result=self._backend.encode_result(value, status),
            state=status,
            traceback=None,
            request=Context(id=turn_id, children=[]),
        )
        key = self._backend.get_key_for_task(turn_id)
        text = self._backend.encode({**meta, "task_id": turn_id})
        return Kept(key.decode() if isinstance(key, bytes) else key, text, self._ms)

    def tell(self, result: TurnResult, *, own: bool, runtime: float) -> None:
        """Tell whoever monitors that a turn has ended, where Celery does not."""
        error = _error(result)
        if not own or error is not None:
            # When its own task came and began, Celery has told.
            events = _events(result, error, runtime)
            self._send(events[-1:] if own else events)

    def refuse(self, turn_id: str, error: InturnError) -> None:
        """Store that a turn was refused before it reached its mailbox."""
        # Celery makes the error anew from its class and its arguments, and not every class of ours lets it.
        failed = TurnFailedError(f"{type(error).__name__}: {error}")
        self._store(turn_id, failed)
        # Of a task that is ignored Celery tells no end.
        self._send([("task-failed", {"uuid": turn_id, "exception": repr(failed), "traceback": ""})])

    def _store(self, turn_id: str, value: Any) -> None:
        # A context of its own: Celery would note the running task's children as this turn's.
        request = Context(id=turn_id, children=[])
        self._backend.store_result(turn_id, value, _status(value), request=request)

    def _value(self, result: TurnResult) -> Any:
        value = result.model_dump(mode="json")
        return _error(result) or self._envelopes.seal_result(result.session_id, result.turn_id, value)

    def _send(self, events: Sequence[tuple[str, dict[str, Any]]]) -> None:
        # Celery tells of tasks, and a turn may be none; without these events Flower would show it as
        # waiting for ever.
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


def _error(result: TurnResult) -> InturnError | None:
    """What `handle.get()` raises in the place of a response."""
    if result.error is None:
        return None
    if result.response.finish_reason == REFUSED:
        return SessionAccessError(result.session_id)
    return TurnFailedError(f"{result.error.type}: {result.error.message}")


def _status(value: Any) -> str:
    return "FAILURE" if isinstance(value, Exception) else "SUCCESS"


def _events(result: TurnResult, error: Exception | None, runtime: float) -> list[tuple[str, dict[str, Any]]]:
    name = SAVE_SESSION if result.kind == "save_session" else RESPOND
    common = {"uuid": result.turn_id, "name": name}
    received = {"args": "()", "kwargs": repr({"session_id": result.session_id})}
    if error is None:
        end = ("task-succeeded", {"result": "None", "runtime": runtime, **common})
    else:
        end = ("task-failed", {"exception": repr(error), "traceback": "", **common})
    return [("task-received", {**received, **common}), ("task-started", common), end]
