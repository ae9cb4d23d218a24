"""Attempt: one try of one delivery, from the part it has come to."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import structlog

from inturn.agent.schema import clean
from inturn.channels import Channel
from inturn.errors import DeliveryRefusedError, DeliveryUnavailableError, InturnError
from inturn.session.state import Delivery
from inturn.turns import Head, Lease

from .drive import LONGEST_RETRY_AFTER, Later
from .facts import facts
from .outbox import Outbox
from .runtime import Runtime
from .watch import count_delivery, count_delivery_retry

log = structlog.get_logger(__name__)

LOOK_AGAIN = Later(0.0, counts=False)
"""Somebody else has changed the delivery: what is to be done is decided anew."""
MOST_WORDS = 300
"""Characters that are kept of an error, and of a platform's name for a part."""


class _Stop(Exception):
    """Ends the attempt; `later` is None if the delivery is over."""

    def __init__(self, later: Later | None) -> None:
        self.later = later


class Attempt:
    """Each part is marked as `sending` in the store before it goes out, and counted there afterwards.

    So whatever happens in between, the next owner knows that the part may have been taken, and that those
    before it were.
    """

    def __init__(
        self, runtime: Runtime, lease: Lease, head: Head, turn_id: str, outbox: Outbox, channel: Channel
    ) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._lease = lease
        self._head = head
        self._turn_id = turn_id
        self._outbox = outbox
        self._channel = channel
        self._began_at = outbox.entry.sent

    def run(self) -> Later | None:
        """Send the parts that are left; None once the delivery is over, whatever it has come to."""
        try:
            self._send_parts(self._parts())
        except _Stop as stop:
            return stop.later

    def _parts(self) -> list[str]:
        entry, attempts = self._outbox.entry, self._head.attempts
        if entry.state == "sending" and not (
            self._channel.repeats_unknown and attempts <= self._settings.max_attempts
        ):
            self._end("unknown", "its process ended while a part was on its way")
        if attempts > self._settings.delivery_attempts:
            self._end("failed", "no attempt ended")
        if self._outbox.reply is None:
            self._end("failed", "the turn's record is gone")
        try:
            return self._channel.parts(self._outbox.reply)
        except Exception as error:
            log.error("reply not split", channel=self._channel.name, **facts(error))
            self._end("failed", words(error))

    def _send_parts(self, parts: list[str]) -> NoReturn:
        entry = self._outbox.entry
        sent, ids = entry.sent, entry.ids
        doubtful = entry.doubtful or entry.state == "sending"
        while sent < len(parts):
            # In this order: a turn that leaves its mailbox after this look has changed the session before the
            # mark is written to it.
            waiting = self._runtime.mailbox.queue(self._lease.session_id)
            # What was taken is counted in the same step in which the next is marked.
            self._change(state="sending", sent=sent, ids=ids, doubtful=doubtful, error=None)
            self._check(waiting)
            ids = [*ids, self._send(parts[sent])]
            sent += 1
        self._end("sent", sent=sent, ids=ids)

    def _check(self, waiting: Sequence[str]) -> None:
        """Go on if the part that is marked may go out, and if it is still for us to send it."""
        try:
            reason = self._channel.may_send(self._outbox.session, waiting)
            # A pause between here and the platform is all that is left for two owners to send the same.
            self._runtime.deliveries.mailbox.renew_all([self._lease])
        except Exception:
            self._outbox.change(state="waiting")
            raise
        if reason is not None:
            self._end("failed", reason)
        if self._lease.lost:
            self._change(state="waiting")
            raise _Stop(LOOK_AGAIN)

    def _send(self, text: str) -> str:
        attempts = self._head.attempts
        progress = self._outbox.entry.sent > self._began_at
        try:
            name = self._channel.send(copy.deepcopy(self._outbox.entry.address), text)
        except DeliveryUnavailableError as error:
            if attempts >= self._settings.delivery_attempts and not progress:
                self._end("failed", words(error))
            self._postpone(error, counts=not progress, retry_after=error.retry_after)
        except DeliveryRefusedError as error:
            self._end("failed", words(error))
        except Exception as error:
            # Whatever it is, the part may have been taken.
            if self._channel.repeats_unknown and attempts < self._settings.max_attempts:
                self._postpone(error, counts=True, doubtful=True)
            log.warning("delivery broke off", channel=self._channel.name, **facts(error))
            self._end("unknown", words(error))
        return str(clean(str(name)))[:MOST_WORDS]

    def _postpone(
        self, error: Exception, *, counts: bool, retry_after: float | None = None, doubtful: bool = False
    ) -> NoReturn:
        doubtful = doubtful or self._outbox.entry.doubtful
        self._change(state="waiting", doubtful=doubtful, error=words(error))
        count_delivery_retry(self._channel.name)
        delay = backoff(self._runtime, self._head)
        if retry_after is not None and not math.isnan(retry_after):
            delay = max(delay, min(retry_after, LONGEST_RETRY_AFTER))
        log.warning(
            "delivery will be tried again",
            channel=self._channel.name,
            attempt=self._head.attempts,
            delay=round(delay, 1),
            **facts(error),
        )
        raise _Stop(Later(delay, counts))

    def _end(
        self, state: Literal["sent", "unknown", "failed"], error: str | None = None, **changes: Any
    ) -> NoReturn:
        self._change(state=state, error=error, **changes)
        tell(self._runtime, self._lease.session_id, self._turn_id, self._outbox.entry)
        raise _Stop(None)

    def _change(self, **changes: Any) -> None:
        seen = self._outbox.entry
        if not self._outbox.change(**changes):
            if changes.get("sent", seen.sent) > seen.sent:
                log.warning("a part was taken, and somebody else has gone on with the delivery meanwhile")
            raise _Stop(LOOK_AGAIN)


def tell(runtime: Runtime, session_id: str, turn_id: str, delivery: Delivery) -> None:
    """Tell of a delivery that is over: in the log, and in the overview if somebody should look at it."""
    if delivery.state != "sent" or delivery.doubtful or delivery.asked is not None:
        runtime.deliveries.outcomes.note(session_id, turn_id, delivery)
    count_delivery(delivery, runtime.channels)
    level = log.info if delivery.state == "sent" else log.error
    level(
        f"delivery {delivery.state}",
        channel=delivery.channel,
        parts=delivery.sent,
        doubtful=delivery.doubtful or None,
        error=delivery.error,
    )


def backoff(runtime: Runtime, head: Head) -> float:
    """Seconds until the next try: they double with each, and are spread."""
    settings = runtime.settings
    delay: float = settings.retry_seconds * 2.0 ** min(head.attempts - 1, 16)
    return min(delay, settings.retry_max_seconds) * random.uniform(0.8, 1.2)


def words(error: Exception) -> str:
    """What may be kept of an error: ours in full, of a stranger's the class, for it may quote the user."""
    text = str(error) if isinstance(error, InturnError) else type(error).__name__
    return str(clean(text))[:MOST_WORDS]
