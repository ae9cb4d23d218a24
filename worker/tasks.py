"""The tasks, by exact name; what they do stands in `drive` and `retention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple
from typing import Any

import structlog
from celery import Task
from celery.exceptions import BackendStoreError, Ignore, Reject
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from inturn import erasure
from inturn.audit import acting_as
from inturn.contract import (
    CLEANUP_SESSIONS,
    DELIVER,
    ERASE_USER,
    RESPOND,
    ROTATE_KEYS,
    SAVE_SESSION,
    WAKE_SESSIONS,
)
from inturn.errors import (
    InvalidInputError,
    MailboxError,
    MailboxFullError,
    OverloadedError,
    SessionBusyError,
    StoreUnavailableError,
)
from inturn.ids import check_id
from inturn.turns.erasures import Erasures
from inturn.turns.overlap import ENQUEUE, Overlap, overlap_of
from inturn.turns.payloads import encode_payload, respond_payload, save_session_payload

from .celery import app
from .delivery import deliver_all
from .drive import drive
from .retention import clean_up
from .rotation import go_on
from .runtime import Runtime, current_runtime

log = structlog.get_logger(__name__)

REPORT_SECONDS = 300
"""For how long what was erased can be read, by whoever asked."""
_REQUEST = f"{__package__}.request:Request"

_OF_A_TURN: dict[str, Any] = {
    "bind": True,
    # Whoever drives the session stores the result, under the turn's own ID.
    "ignore_result": True,
    "Request": _REQUEST,
    "resultrepr_maxsize": 0,
}


@app.task(name=RESPOND, **_OF_A_TURN)
def respond(
    self: Task[Any, Any],
    session_id: str | None = None,
    message: str | None = None,
    user_id: str | None = None,
    bound: bool = False,
    channel: str | None = None,
    address: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    images: Sequence[str] = (),
    stream: bool = False,
    overlap: Any = None,
    quiet: Any = None,
    **unknown: Any,
) -> None:
    """Run the waiting turns of a session.

    A message of this library names the session only. A bare `send_task("respond", kwargs={"session_id":
    ..., "message": ...})` brings its turn along, and the task's ID becomes the turn's.
    """

    def make(runtime: Runtime, session_id: str) -> tuple[str, Overlap]:
        payload = respond_payload(
            runtime.settings,
            session_id,
            message,  # type: ignore[arg-type]  # it is checked there
            user_id=user_id,
            bound=bound,
            channel=channel,
            address=address,
            metadata=metadata,
            images=images,
            stream=stream,
        )
        text = encode_payload(runtime.settings, payload)
        return text, overlap_of(runtime.settings, payload, text, policy=overlap, quiet=quiet)

    _drive(self, session_id, None if message is None else make, unknown)


@app.task(name=SAVE_SESSION, **_OF_A_TURN)
def save_session(
    self: Task[Any, Any],
    session_id: str | None = None,
    data: Mapping[str, Any] | None = None,
    status: Any = None,
    metadata: Mapping[str, Any] | None = None,
    messages: Sequence[Mapping[str, Any]] | None = None,
    user_id: str | None = None,
    bound: bool = False,
    **unknown: Any,
) -> None:
    """Change a session from outside, in order with its turns."""

    def make(runtime: Runtime, session_id: str) -> tuple[str, Overlap]:
        payload = save_session_payload(
            runtime.settings,
            session_id,
            data=data,
            status=status,
            metadata=metadata,
            messages=messages,
            user_id=user_id,
            bound=bound,
        )
        return encode_payload(runtime.settings, payload), ENQUEUE

    _drive(self, session_id, make, unknown)


@app.task(name=DELIVER, ignore_result=True, resultrepr_maxsize=0)
def deliver(session_id: str) -> None:
    """Send the replies of a session that wait to go out on their channels, in order."""
    try:
        deliver_all(current_runtime(), check_id(session_id))
    except InvalidInputError as error:
        log.warning("delivery refused", error=str(error))
        raise Ignore from None
    except (MailboxError, OperationalError, RedisError):
        # The lease lapses, and a sweeper finds what is left.
        log.warning("delivery ended: Redis or the broker is away", session_id=session_id, exc_info=True)
        raise Ignore from None


@app.task(name=CLEANUP_SESSIONS)
def cleanup_sessions(dry_run: bool = False) -> dict[str, Any]:
    """Apply the retention policy; returns the report. Safe to run twice and beside turns."""
    with acting_as("retention"):
        return clean_up(current_runtime(), dry_run=dry_run).model_dump(mode="json")


def _expire_soon(task: Task[Any, Any], _status: str, _value: Any, task_id: str, *_: Any) -> None:
    backend: Any = task.backend
    if hasattr(backend, "get_key_for_task"):
        backend.expire(backend.get_key_for_task(task_id), REPORT_SECONDS)


# The ID of who was erased is nothing to monitor, nor to keep for as long as results of turns.
@app.task(bind=True, name=ERASE_USER, Request=_REQUEST, resultrepr_maxsize=0, after_return=_expire_soon)
def erase_user(
    self: Task[Any, Any], user_id: str, patience: float = 30.0, actor: str | None = None
) -> dict[str, Any]:
    """Remove all there is of a user; returns the report. Safe to run twice and beside turns.

    `actor` is who asked for it, for the audit log. Waits for another task that erases the same user.
    """
    runtime = current_runtime()
    check_id(user_id, "user ID")
    with ExitStack() as stack:
        if actor is not None:
            stack.enter_context(acting_as(actor))
        keep = stack.enter_context(
            Erasures(runtime.redis, runtime.settings).alone(
                str(self.request.id), user_id, patience=patience, actor=actor
            )
        )
        runtime.prepare_store()
        report = erasure.erase_user(
            runtime.settings,
            runtime.adapter,
            runtime.redis,
            user_id,
            patience=patience,
            on_progress=lambda _place, _count: keep(),
        )
    log.info("user erased", **report.model_dump(exclude={"elsewhere", "dry_run"}))
    return report.model_dump(mode="json")


@app.task(name=ROTATE_KEYS)
def rotate_keys() -> dict[str, Any]:
    """Go on with sealing all that is stored with the newest key; returns how far it is. Safe to run twice."""
    return go_on(current_runtime()).model_dump(mode="json")


@app.task(name=WAKE_SESSIONS)
def wake_sessions() -> int:
    """Sweep once; returns how many sessions were woken, for their turns or for their deliveries."""
    runtime = current_runtime()
    return runtime.sweeper.sweep() + runtime.out_sweeper.sweep()


def _drive(
    task: Task[Any, Any],
    session_id: str | None,
    make: Callable[[Runtime, str], tuple[str, Overlap]] | None,
    unknown: Mapping[str, Any],
) -> None:
    turn_id = str(task.request.id)
    runtime = current_runtime()
    try:
        session_id = check_id(session_id)
        if unknown:
            # Celery would only log it, and the sender would wait for a result for ever.
            raise InvalidInputError(f"{task.name} takes no {', '.join(unknown)}")
        payload, overlap = ("", ENQUEUE) if make is None else make(runtime, session_id)
    except InvalidInputError as error:
        runtime.results.refuse(turn_id, error)
        log.warning("turn refused", turn_id=turn_id, error=str(error))
        raise Ignore from None
    try:
        # A turn that came with its message is accepted here.
        inbox = None if make is None else runtime.inbox
        is_new = inbox is not None and inbox.put(session_id, turn_id, payload, astuple(overlap))
        driven = drive(runtime, session_id, turn_id, payload, overlap)
        if inbox is not None and is_new and driven.outcome not in ("ok", "busy"):
            inbox.remove(session_id, [turn_id])
    except StoreUnavailableError:
        log.warning("turn not accepted yet: the database is away", session_id=session_id, turn_id=turn_id)
        raise Reject("the database is away", requeue=True) from None
    except (MailboxError, BackendStoreError, OperationalError, RedisError):
        # The lease lapses and the turns are found by a sweeper. But a turn that came with its message is
        # perhaps nowhere else yet: the message must come again.
        log.warning(
            "drive ended: Redis or the broker is away", session_id=session_id, turn_id=turn_id, exc_info=True
        )
        if make is None:
            raise Ignore from None
        raise Reject("Redis is away", requeue=True) from None
    if driven.outcome == "full":
        runtime.results.refuse(turn_id, MailboxFullError(session_id, driven.waiting))
        raise Ignore
    if driven.outcome == "rejected":
        runtime.results.refuse(turn_id, SessionBusyError(session_id, driven.waiting))
        raise Ignore
    if driven.outcome == "shut":
        runtime.results.refuse(turn_id, OverloadedError(driven.waiting))
        raise Ignore
    if not driven.succeeded(turn_id):
        # Celery would tell Flower that the task has succeeded, while the turn waits, or has failed.
        raise Ignore
