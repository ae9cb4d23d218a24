"""Drive: hold a session's lease and work through its mailbox."""

from __future__ import annotations

import random
import time
import traceback
from dataclasses import dataclass

import structlog

from inturn.contract import (
    Payload,
    RespondPayload,
    Response,
    TurnFault,
    TurnResult,
    UnknownPayloadError,
    decode_payload,
)
from inturn.errors import (
    InturnError,
    InvalidInputError,
    MailboxUnavailableError,
    SessionMigrationError,
    SessionTooNewError,
    StoreUnavailableError,
    TurnFailedError,
)
from inturn.turns import Head, Lease, OpenReply
from inturn.turns.lease import create_token
from inturn.turns.publishing import publish_turn

from .runtime import Runtime, stopping
from .streaming import LeaseLostError, respond

log = structlog.get_logger(__name__)

BLAMELESS = (
    StoreUnavailableError,
    MailboxUnavailableError,
    UnknownPayloadError,
    SessionMigrationError,
    SessionTooNewError,
    LeaseLostError,
)
"""That the database or Redis is away, that this release cannot read the turn or its session, or that somebody
else has the lease now, says nothing about the turn: it uses up none of its attempts, and no turn is given up
for it."""


@dataclass(frozen=True, slots=True)
class Later:
    """The turn stays at the head and is tried again after `delay` seconds; `counts` as an attempt or not."""

    delay: float
    counts: bool


@dataclass(frozen=True, slots=True)
class Driven:
    """What a drive did: how `begin` went, and the results of the turns that ended, in order."""

    outcome: str
    results: tuple[TurnResult, ...] = ()

    def succeeded(self, turn_id: str) -> bool:
        """Whether the turn ended well in this drive."""
        return any(result.turn_id == turn_id and result.error is None for result in self.results)


def drive(runtime: Runtime, session_id: str, turn_id: str, payload: str = "") -> Driven:
    """Take the session's lease and run its turns, in order, until none is left or others should have a turn.

    `turn_id` is the ID of the message that made us look; what runs first is the head of the mailbox. With
    a `payload` the turn is appended first if it is unknown. Ends at once if somebody else holds the lease.
    """
    begun = runtime.mailbox.begin(session_id, turn_id, create_token(), payload=payload)
    if begun.lease is None or begun.head is None:
        return Driven(begun.outcome)
    with runtime.heartbeat.hold(begun.lease):
        return Driven("ok", tuple(_work(runtime, begun.lease, begun.head, turn_id)))


def _work(runtime: Runtime, lease: Lease, head: Head, own_id: str) -> list[TurnResult]:
    settings = runtime.settings
    began = time.monotonic()
    results: list[TurnResult] = []
    next_head: Head | None = head
    while next_head is not None:
        head = next_head
        started = time.monotonic()
        with structlog.contextvars.bound_contextvars(session_id=lease.session_id, turn_id=head.turn_id):
            ended = _take(runtime, lease, head)
        now = time.monotonic()
        if isinstance(ended, Later):
            runtime.mailbox.release(lease, delay=ended.delay, counts=ended.counts)
            break
        # The result first: a turn leaves the mailbox only once whoever waits for it can have its answer.
        runtime.results.store(ended, own=head.turn_id == own_id, runtime=now - started)
        results.append(ended)
        fair = len(results) < settings.drive_turns and now - began < settings.drive_seconds
        leave = bool(stopping)
        finished = runtime.mailbox.finish(lease, head.turn_id, go_on=fair and not leave, hand_over=leave)
        # A process that is about to end sends no message: it may well be the one to receive it.
        if finished.publish is not None and not leave:
            publish_turn(runtime.app, lease.session_id, finished.publish)
        elif finished.outcome == "lost":
            log.warning("drive ended: lease lost", session_id=lease.session_id, fence=lease.fence)
        next_head = finished.head
    return results


def _take(runtime: Runtime, lease: Lease, head: Head) -> TurnResult | Later:
    try:
        payload = decode_payload(head.payload)
    except InturnError as error:
        if error.retryable:
            return _later(runtime, head, error)
        # Nobody can run it, and nothing of it is known: only its end can be told.
        log.error("turn dropped: its payload is not valid")
        fault = TurnFault(type=type(error).__name__, message=str(error), attempts=head.attempts)
        return _failed_result("respond", lease.session_id, head.turn_id, fault)
    with runtime.streams.open(lease, head.turn_id) as reply:
        ended = _attempt(runtime, lease, head, payload, reply)
        if isinstance(ended, TurnResult) and isinstance(payload, RespondPayload) and payload.stream:
            # Before the result: who finds that one has all of the stream.
            reply.end(ended.response.message)
        return ended


def _attempt(
    runtime: Runtime, lease: Lease, head: Head, payload: Payload, reply: OpenReply
) -> TurnResult | Later:
    if head.attempts > runtime.settings.max_attempts:
        # It was handed out that often and never ended, not even by failing: it kills its process.
        fault = TurnFault(type="AttemptsExhausted", message="no attempt ended", attempts=head.attempts - 1)
        return _give_up(runtime, head, payload, fault)
    try:
        runtime.prepare_store()
        return _run(runtime, lease, head, payload, reply)
    except TurnFailedError as error:
        # It was recorded as failed before, by an owner that died before it could say so; what it recorded
        # is found again.
        fault = TurnFault(type=type(error).__name__, message=str(error), attempts=head.attempts)
        return _give_up(runtime, head, payload, fault)
    except Exception as error:
        known = isinstance(error, InturnError)
        may_try = head.attempts < runtime.settings.max_attempts and getattr(error, "retryable", True)
        if may_try or isinstance(error, BLAMELESS):
            log.warning("turn will be tried again", attempt=head.attempts, **_facts(error))
            return _later(runtime, head, error)
        log.error("turn failed", attempt=head.attempts, **_facts(error))
        # A stranger's message may hold a user's words; its class is enough to find it in the log.
        message = str(error) if known else "an error of the agent's own code"
        fault = TurnFault(type=type(error).__name__, message=message, attempts=head.attempts)
        return _give_up(runtime, head, payload, fault)


def _run(runtime: Runtime, lease: Lease, head: Head, payload: Payload, reply: OpenReply) -> TurnResult:
    if isinstance(payload, RespondPayload):
        agent = runtime.agent.bind(
            payload.session_id, persistence=runtime.persistence, user_id=payload.user_id
        )
        response = respond(agent, payload, lease, head.turn_id, reply)
        return TurnResult(
            kind="respond", session_id=payload.session_id, turn_id=head.turn_id, response=response
        )
    record = runtime.persistence.save_turn(
        payload.session_id,
        head.turn_id,
        data=payload.data,
        status=payload.status,
        metadata=payload.metadata,
        messages=payload.messages,
        user_id=payload.user_id,
    )
    return TurnResult.model_validate(record.result)


def _give_up(runtime: Runtime, head: Head, payload: Payload, fault: TurnFault) -> TurnResult | Later:
    try:
        if isinstance(payload, RespondPayload):
            agent = runtime.agent.bind(
                payload.session_id, persistence=runtime.persistence, user_id=payload.user_id
            )
            response = agent.record_failure(
                payload.message, fault, turn_id=head.turn_id, images=payload.images
            )
            # An owner before us may have committed the turn after all; then that is what counts.
            failed = response.finish_reason == "failed"
            return TurnResult(
                kind="respond",
                session_id=payload.session_id,
                turn_id=head.turn_id,
                state="failed" if failed else "done",
                response=response,
                error=fault if failed else None,
            )
        # An owner before us may have committed this one, too, and died before it could say so.
        known = runtime.persistence.load(payload.session_id, turn_id=head.turn_id)
        if known is not None and known.turn is not None:
            return TurnResult.model_validate(known.turn.result)
    except InvalidInputError as error:
        # No later try could record it either, and the turns behind it must not wait for one.
        log.error("failure cannot be recorded", **_facts(error))
    except Exception as error:
        log.warning("failure not recorded yet", **_facts(error))
        return _later(runtime, head, error)
    return _failed_result(payload.kind, payload.session_id, head.turn_id, fault)


def _later(runtime: Runtime, head: Head, error: Exception) -> Later:
    settings = runtime.settings
    counts = not isinstance(error, BLAMELESS)
    # An outage makes every waiting session come back, so they come back less often, and spread.
    delay = settings.retry_seconds * (2 ** min(head.attempts - 1, 16) if counts else random.uniform(1, 5))
    delay = min(delay, settings.retry_max_seconds) * random.uniform(0.8, 1.2)
    return Later(max(delay, getattr(error, "retry_after", None) or 0.0), counts)


def _facts(error: Exception) -> dict[str, str]:
    """What may be logged of an error: ours in full, of a stranger's the class and the lines of code.

    Its message may quote the user.
    """
    if isinstance(error, InturnError):
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": type(error).__name__, "stack": "".join(traceback.format_tb(error.__traceback__))}


def _failed_result(kind: str, session_id: str, turn_id: str, fault: TurnFault) -> TurnResult:
    response = Response(message="", session_id=session_id, turn_id=turn_id, finish_reason="failed")
    return TurnResult.model_validate(
        {
            "kind": kind,
            "session_id": session_id,
            "turn_id": turn_id,
            "state": "failed",
            "response": response,
            "error": fault,
        }
    )
