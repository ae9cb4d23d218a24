"""Delivery: hold a session's out mailbox and send the replies that wait in it, in order."""

from __future__ import annotations

import random
import time

import structlog
from celery import current_task

from inturn.contract import DeliveryNote, UnknownPayloadError, decode_note
from inturn.errors import EncryptionKeyError, MailboxError, SessionConflictError, StoreUnavailableError
from inturn.metrics import count_lost
from inturn.session import SessionState
from inturn.session.state import Delivery, utcnow
from inturn.turns import Head, Lease
from inturn.turns.lease import create_token
from inturn.turns.publishing import publish_delivery

from .attempt import LOOK_AGAIN, Attempt, backoff, tell, words
from .drive import Later
from .facts import facts
from .outbox import Outbox
from .runtime import Runtime, stopping
from .watch import count_delivery_seconds, delivery_span

log = structlog.get_logger(__name__)

BLAMELESS = (StoreUnavailableError, SessionConflictError, EncryptionKeyError, UnknownPayloadError)
"""Errors that say nothing about the delivery: they use up none of its attempts."""
LONGEST_WITHOUT_CHANNEL = 300.0
"""Seconds between two looks at a delivery whose channel is not set up here."""


def deliver_all(runtime: Runtime, session_id: str) -> None:
    """Take the lease of the session's out mailbox and send what waits, in order, until none is left.

    Ends sooner to let others have a turn, and at once if somebody else holds the lease.
    """
    begun = runtime.deliveries.mailbox.begin(session_id, "", create_token())
    if begun.lease is None or begun.head is None:
        return
    task_id = current_task.request.id if current_task else None
    named = structlog.contextvars.bound_contextvars(session_id=session_id, task_id=task_id)
    with named, runtime.out_heartbeat.hold(begun.lease):
        _work(runtime, begun.lease, begun.head)


def _work(runtime: Runtime, lease: Lease, head: Head | None) -> None:
    settings, mailbox = runtime.settings, runtime.deliveries.mailbox
    began, done = time.monotonic(), 0
    while head is not None:
        with structlog.contextvars.bound_contextvars(session_id=lease.session_id, turn_id=head.turn_id):
            later = _take(runtime, lease, head)
        if later is not None:
            if not mailbox.release(lease, delay=later.delay, counts=later.counts):
                _tell_lost(lease)
            return
        done += 1
        fair = done < settings.drive_turns and time.monotonic() - began < settings.drive_seconds
        leave = bool(stopping)
        finished = mailbox.finish(lease, head.turn_id, go_on=fair and not leave, hand_over=leave)
        # A process that is about to end sends no message: it may well be the one to receive it.
        if finished.publish is not None and not leave:
            publish_delivery(runtime.app, lease.session_id)
        elif finished.outcome == "lost":
            _tell_lost(lease)
        head = finished.head


def _tell_lost(lease: Lease) -> None:
    count_lost("deliveries")
    log.warning("deliveries ended: lease lost", session_id=lease.session_id, fence=lease.fence)


def _take(runtime: Runtime, lease: Lease, head: Head) -> Later | None:
    """Bring one delivery to its end; or tell when it is to be tried again."""
    note: DeliveryNote | None = None
    outbox: Outbox | None = None
    try:
        note = decode_note(head.payload)
        runtime.prepare_store()
        outbox = Outbox.open(runtime.adapter, lease.session_id, note.turn_id)
        if outbox is None:
            log.info("delivery dropped: its session has it no more")
            return None
        _recover(runtime, head, note, outbox.session)
        with delivery_span(lease.session_id, note, head.attempts):
            return _decide(runtime, lease, head, note, outbox)
    except MailboxError:
        raise
    except Exception as error:
        settings = runtime.settings
        may_try = head.attempts < settings.delivery_attempts and getattr(error, "retryable", True)
        if isinstance(error, BLAMELESS):
            log.warning("delivery will be tried again", **facts(error))
            return Later(settings.retry_seconds * random.uniform(1, 5), counts=False)
        if may_try:
            log.warning("delivery will be tried again", attempt=head.attempts, **facts(error))
            return Later(backoff(runtime, head), counts=True)
        log.error("delivery cannot be made", attempt=head.attempts, **facts(error))
        return _give_up(runtime, lease.session_id, note, outbox, error)


def _give_up(
    runtime: Runtime, session_id: str, note: DeliveryNote | None, outbox: Outbox | None, error: Exception
) -> Later | None:
    """End a delivery that no try gets on with: those behind it must not wait for it any longer."""
    if note is None:
        return None
    failed = Delivery(channel=note.channel or "", state="failed", error=words(error))
    if outbox is not None:
        try:
            if not outbox.change(state="failed", error=failed.error):
                return LOOK_AGAIN
            failed = outbox.entry
        except Exception as broken:
            # It cannot be written either: then only the overview tells.
            log.error("delivery left as it is", **facts(broken))
    tell(runtime, session_id, note.turn_id, failed)
    return None


def _recover(runtime: Runtime, head: Head, note: DeliveryNote, session: SessionState) -> None:
    """Offer what the session has still to deliver and its out mailbox does not hold: Redis has lost data.

    Or it was committed just now and is about to be offered; then that finds it known.
    """
    others = {turn_id: each for turn_id, each in session.outbox.items() if not each.is_over}
    others.pop(note.turn_id, None)
    if len(others) >= head.waiting:
        for turn_id in sorted(others, key=lambda turn_id: others[turn_id].changed_at):
            runtime.deliveries.offer(session.id, turn_id, others[turn_id].channel)


def _decide(runtime: Runtime, lease: Lease, head: Head, note: DeliveryNote, outbox: Outbox) -> Later | None:
    entry = outbox.entry
    if note.again and entry.state in ("unknown", "failed") and entry.asked != head.turn_id:
        doubtful = entry.doubtful or entry.state == "unknown"
        if not outbox.change(state="waiting", asked=head.turn_id, doubtful=doubtful, error=None):
            return LOOK_AGAIN
    if outbox.entry.is_over:
        if head.attempts > 1:  # an owner before us has ended it, and died perhaps before it could tell
            tell(runtime, lease.session_id, note.turn_id, outbox.entry)
        return None
    channel = runtime.channels.get(outbox.entry.channel)
    if channel is None:
        log.warning("delivery left to a process that has its channel", channel=outbox.entry.channel)
        age = (utcnow() - note.accepted_at).total_seconds()
        delay = min(max(age / 2, runtime.settings.retry_seconds), LONGEST_WITHOUT_CHANNEL)
        return Later(delay * random.uniform(0.8, 1.2), counts=False)
    later = Attempt(runtime, lease, head, note.turn_id, outbox, channel).run()
    if later is None:
        count_delivery_seconds(channel.name, note.accepted_at)
    return later
