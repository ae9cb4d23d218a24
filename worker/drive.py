"""Drive: hold a session's lease and work through its mailbox."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

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
    EncryptionKeyError,
    InturnError,
    InvalidInputError,
    MailboxUnavailableError,
    ModelBudgetError,
    SessionAccessError,
    SessionErasedError,
    SessionMigrationError,
    SessionTooNewError,
    StoreError,
    StoreUnavailableError,
    TurnFailedError,
)
from inturn.metrics import count_lost, kind_of
from inturn.persistence import PersistenceManager
from inturn.persistence.kept import KeptSession
from inturn.persistence.tombstones import working_on
from inturn.turns import Head, Lease, OpenReply
from inturn.turns.lease import create_token
from inturn.turns.overlap import ENQUEUE, Overlap
from inturn.turns.publishing import publish_turn

from .asked import Asked
from .ending import end
from .erased import erased, in_hand
from .facts import facts
from .posting import OutboxFullError, delivery_of, post
from .runtime import Runtime, stopping
from .streaming import LeaseLostError, respond
from .tenant import tenant_of
from .watch import TurnWatch

log = structlog.get_logger(__name__)

MOST_RESTORES = 5
"""How often one message may find its session's mailbox behind the inbox."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a model or a platform that wishes for a longer wait is asked again after this."""

BLAMELESS = (
    StoreUnavailableError,
    MailboxUnavailableError,
    UnknownPayloadError,
    SessionMigrationError,
    SessionTooNewError,
    EncryptionKeyError,
    LeaseLostError,
    OutboxFullError,
)
"""That the database or Redis is away, that this release cannot read the turn or its session, that somebody
else has the lease now, or that replies before it cannot go out, says nothing about the turn: it uses up none
of its attempts, and no turn is given up for it."""


@dataclass(frozen=True, slots=True)
class Later:
    """The turn stays at the head and is tried again after `delay` seconds; `counts` as an attempt or not."""

    delay: float
    counts: bool
    behind: bool = False
    """An accepted turn belongs before it, and is not in the mailbox."""
    why: str = "order"
    """The class of the error, if it was one."""


@dataclass(frozen=True, slots=True)
class Driven:
    """What a drive did: how `begin` went, and the results of the turns that ended, in order."""

    outcome: str
    results: tuple[TurnResult, ...] = ()
    waiting: int = 0
    """The turns that wait, where the message's own was refused for them."""

    def succeeded(self, turn_id: str) -> bool:
        """Whether the turn ended well in this drive."""
        return any(result.turn_id == turn_id and result.error is None for result in self.results)


def drive(
    runtime: Runtime, session_id: str, turn_id: str, payload: str = "", overlap: Overlap = ENQUEUE
) -> Driven:
    """Take the session's lease and run its turns, in order, until none is left or others should have a turn.

    `turn_id` is the ID of the message that made us look; what runs first is the head of the mailbox. With
    a `payload` the turn is offered first if it is unknown. Ends at once if somebody else holds the lease.
    """
    results: list[TurnResult] = []
    for _ in range(MOST_RESTORES):
        begun = runtime.mailbox.begin(session_id, turn_id, create_token(), payload=payload, overlap=overlap)
        if begun.lease is None or begun.head is None:
            return Driven("ok" if results else begun.outcome, tuple(results), begun.waiting)
        named = structlog.contextvars.bound_contextvars(session_id=session_id, task_id=turn_id)
        with named, runtime.heartbeat.hold(begun.lease):
            in_order = _work(runtime, begun.lease, begun.head, turn_id, results)
        if in_order or not _restore(runtime, session_id):
            break
    return Driven("ok", tuple(results))


def _restore(runtime: Runtime, session_id: str) -> bool:
    """Bring the mailbox, which was given back, up to the inbox; False: a sweeper looks at it again."""
    try:
        return runtime.keeper is not None and runtime.keeper.restore(session_id)
    except StoreUnavailableError as error:
        log.warning("inbox not read", session_id=session_id, error=str(error))
        return False


def _work(runtime: Runtime, lease: Lease, head: Head, own_id: str, results: list[TurnResult]) -> bool:
    """Run turns from the head on, and add their results; False: one is missing before the head."""
    settings = runtime.settings
    began = time.monotonic()
    turns = 0
    memory = KeptSession()
    persistence = runtime.persistence.keeping(memory)
    next_head: Head | None = head
    while next_head is not None:
        head = next_head
        memory.expect(head.behind)
        started = time.monotonic()
        watch = TurnWatch(lease.session_id, head)
        with structlog.contextvars.bound_contextvars(session_id=lease.session_id, turn_id=head.turn_id):
            ended = _take(runtime, persistence, lease, head, watch)
        now = time.monotonic()
        if isinstance(ended, Later):
            watch.put_off(ended.why)
            if not runtime.mailbox.release(lease, delay=ended.delay, counts=ended.counts):
                _tell_lost(lease)
            return not ended.behind

        turns += 1
        fair = turns < settings.drive_turns and now - began < settings.drive_seconds
        leave = bool(stopping)
        finish = partial(
            runtime.mailbox.finish, lease, head.turn_id, go_on=fair and not leave, hand_over=leave
        )
        try:
            since = max(started, watch.looked)
            kept, finished = end(
                runtime, lease.session_id, head, ended, finish, own_id=own_id, took=now - started, since=since
            )
        except StoreError as error:
            log.warning("result not stored yet", turn_id=head.turn_id, **watch.trace, **facts(error))
            runtime.mailbox.release(lease, delay=_later(runtime, head, error).delay, counts=False)
            return True
        if finished.outcome != "lost":
            watch.end(kept, now - started)
            results += kept
            _leave_inbox(runtime, lease.session_id, head.turn_ids)
        # A process that is about to end sends no message: it may well be the one to receive it.
        if finished.publish is not None and not leave:
            publish_turn(runtime.app, lease.session_id, finished.publish)
        elif finished.outcome == "lost":
            _tell_lost(lease)
        next_head = finished.head
    return True


def _tell_lost(lease: Lease) -> None:
    count_lost("turns")
    log.warning("drive ended: lease lost", session_id=lease.session_id, fence=lease.fence)


def _leave_inbox(runtime: Runtime, session_id: str, turn_ids: Sequence[str]) -> None:
    try:
        if runtime.inbox is not None:
            runtime.inbox.remove(session_id, turn_ids)
    except StoreError as error:
        # The mailbox knows that they are done, and the store too: whoever finds them there takes them out.
        log.warning("turns left in the inbox", session_id=session_id, error=str(error))


def _take(
    runtime: Runtime, persistence: PersistenceManager, lease: Lease, head: Head, watch: TurnWatch
) -> list[TurnResult] | Later:
    try:
        if runtime.inbox is not None and not runtime.inbox.is_next(lease.session_id, head.turn_ids):
            return Later(0, counts=False, behind=True)
    except StoreUnavailableError as error:
        return _later(runtime, head, error)
    payloads: dict[str, Payload] = {}
    dropped: list[TurnResult] = []
    for turn_id, text in ((head.turn_id, head.payload), *head.merged):
        try:
            payloads[turn_id] = decode_payload(text)
        except InturnError as error:
            if error.retryable:
                return _later(runtime, head, error)
            # Nobody can run it, and nothing of it is known: only its end can be told.
            log.error("turn dropped: its payload is not valid", dropped=turn_id)
            fault = TurnFault(type=type(error).__name__, message=str(error), attempts=head.attempts)
            dropped.append(_failed_result("respond", lease.session_id, turn_id, fault))
    if not payloads:
        return dropped
    (first, payload), *others = payloads.items()
    further = {turn_id: other for turn_id, other in others if isinstance(other, RespondPayload)}
    asked = Asked(first, payload, further)
    with ExitStack() as stack:
        stack.enter_context(watch.begin(asked))
        replies = {
            turn_id: stack.enter_context(runtime.streams.open(lease, turn_id)) for turn_id in asked.streamed
        }
        turn = in_hand(payloads)
        with working_on(turn):
            ended = _attempt(runtime, persistence, lease, head, asked, list(replies.values()))
        if isinstance(ended, Later):
            watch.tried((), ended.why)
            return ended
        watch.tried(ended)
        watch.looked = turn.looked
        for result in ended:
            if result.turn_id in replies:
                # Before the result: who finds that one has all of the stream.
                replies[result.turn_id].end(result.response.message)
    return ended + dropped


def _attempt(
    runtime: Runtime,
    persistence: PersistenceManager,
    lease: Lease,
    head: Head,
    asked: Asked,
    replies: Sequence[OpenReply],
) -> list[TurnResult] | Later:
    if head.attempts > runtime.settings.max_attempts:
        # It was handed out that often and never ended, not even by failing: it kills its process.
        fault = TurnFault(type="AttemptsExhausted", message="no attempt ended", attempts=head.attempts - 1)
        return _give_up(runtime, persistence, head, asked, fault)
    try:
        runtime.prepare_store()
        return _run(runtime, persistence, lease, asked, replies)
    except TurnFailedError as error:
        # It was recorded as failed before, by an owner that died before it could say so; what it recorded
        # is found again.
        fault = TurnFault(type=type(error).__name__, message=str(error), attempts=head.attempts)
        return _give_up(runtime, persistence, head, asked, fault)
    except SessionErasedError:
        return _too_late(lease.session_id, head, asked)
    except ModelBudgetError as error:
        # No attempt: the turn has not begun. Its time is drawn already, so that not all come back together.
        log.info("turn waits for the model", seconds=round(error.retry_after, 1), reason=str(error))
        return Later(error.retry_after, counts=False, why=kind_of(error))
    except Exception as error:
        known = isinstance(error, InturnError)
        may_try = head.attempts < runtime.settings.max_attempts and getattr(error, "retryable", True)
        if may_try or isinstance(error, BLAMELESS):
            log.warning("turn will be tried again", attempt=head.attempts, **facts(error))
            return _later(runtime, head, error)
        log.error("turn failed", attempt=head.attempts, **facts(error))
        # A stranger's message may hold a user's words; its class is enough to find it in the log.
        message = str(error) if known else "an error of the agent's own code"
        fault = TurnFault(type=type(error).__name__, message=message, attempts=head.attempts)
        return _give_up(runtime, persistence, head, asked, fault)


def _run(
    runtime: Runtime,
    persistence: PersistenceManager,
    lease: Lease,
    asked: Asked,
    replies: Sequence[OpenReply],
) -> list[TurnResult]:
    payload, persistence = asked.payload, asked.reach(persistence)
    if isinstance(payload, RespondPayload):
        agent = runtime.agent.bind(
            payload.session_id,
            persistence=persistence,
            user_id=payload.user_id,
            budget=runtime.budget.of_turn(tenant_of(payload)),
        )
        response = runtime.time_limit.run(lambda: respond(agent, payload, asked, lease, replies))
        result = TurnResult(
            kind="respond", session_id=payload.session_id, turn_id=asked.turn_id, response=response
        )
        return _answered(runtime, asked, payload, result)
    record = runtime.time_limit.run(
        lambda: persistence.save_turn(
            payload.session_id,
            asked.turn_id,
            data=payload.data,
            status=payload.status,
            metadata=payload.metadata,
            messages=payload.messages,
            user_id=payload.user_id,
        )
    )
    return [TurnResult.model_validate(record.result)]


def _answered(
    runtime: Runtime, asked: Asked, payload: RespondPayload, result: TurnResult
) -> list[TurnResult]:
    """The results of the turn and of those that were merged into it; their replies are on their way out."""
    results = [result]
    if asked.further:
        # A turn among them may have been committed before, with another reply: the store knows.
        records = runtime.persistence.find_turns(payload.session_id, asked.turn_ids)
        results = [
            TurnResult.model_validate(records[turn_id].result)
            if turn_id in records
            else result.model_copy(update={"turn_id": turn_id})
            for turn_id in asked.turn_ids
        ]
    for response in {each.response.turn_id: each.response for each in results}.values():
        post(runtime, payload, response)
    return results


def _give_up(
    runtime: Runtime, persistence: PersistenceManager, head: Head, asked: Asked, fault: TurnFault
) -> list[TurnResult] | Later:
    payload, persistence = asked.payload, asked.reach(persistence)
    try:
        if isinstance(payload, RespondPayload):
            agent = runtime.agent.bind(payload.session_id, persistence=persistence, user_id=payload.user_id)
            response = agent.record_failure(
                payload.message,
                fault,
                turn_id=asked.turn_id,
                images=payload.images,
                delivery=delivery_of(payload),
                further=asked.said,
            )
            # An owner before us may have committed the turn after all; then that is what counts.
            failed = response.finish_reason == "failed"
            if failed and fault.type == TurnFailedError.__name__:
                # What it was given up for then says more.
                record = persistence.find_turns(payload.session_id, [asked.turn_id])[asked.turn_id]
                fault = TurnResult.model_validate(record.result).error or fault
            result = TurnResult(
                kind="respond",
                session_id=payload.session_id,
                turn_id=asked.turn_id,
                state="failed" if failed else "done",
                response=response,
                error=fault if failed else None,
            )
            return _answered(runtime, asked, payload, result)
        # An owner before us may have committed this one, too, and died before it could say so.
        known = persistence.load(payload.session_id, turn_id=asked.turn_id)
        if known is not None and known.turn is not None:
            return [TurnResult.model_validate(known.turn.result)]
    except SessionErasedError:
        return _too_late(payload.session_id, head, asked)
    except SessionAccessError:
        log.warning("turn refused: the session is not of the user that it is bound to")
        return asked.refused(head.attempts)
    except InvalidInputError as error:
        # No later try could record it either, and the turns behind it must not wait for one.
        log.error("failure cannot be recorded", **facts(error))
    except Exception as error:
        log.warning("failure not recorded yet", **facts(error))
        return _later(runtime, head, error)
    return [_failed_result(payload.kind, payload.session_id, turn_id, fault) for turn_id in asked.turn_ids]


def _too_late(session_id: str, head: Head, asked: Asked) -> list[TurnResult]:
    log.info("turn dropped: its user was erased after it was accepted", attempt=head.attempts)
    return erased(session_id, asked.turn_ids, head.attempts)


def _later(runtime: Runtime, head: Head, error: Exception) -> Later:
    settings = runtime.settings
    counts = not isinstance(error, BLAMELESS)
    # An outage makes every waiting session come back, so they come back less often, and spread.
    delay = settings.retry_seconds * (2 ** min(head.attempts - 1, 16) if counts else random.uniform(1, 5))
    delay = min(delay, settings.retry_max_seconds) * random.uniform(0.8, 1.2)
    # The time that a model asks for is the least; without a spread all would come back at its end.
    asked = min(getattr(error, "retry_after", None) or 0.0, LONGEST_RETRY_AFTER) * random.uniform(1, 1.2)
    return Later(max(delay, asked), counts, why=kind_of(error))


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
