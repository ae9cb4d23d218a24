"""Posting: the reply of a turn that has ended goes into its conversation's out mailbox."""

from __future__ import annotations

import structlog

from inturn.contract import RespondPayload, Response
from inturn.errors import InturnError, MailboxError
from inturn.session.state import Delivery
from inturn.turns.publishing import publish_delivery

from .runtime import Runtime

log = structlog.get_logger(__name__)


class OutboxFullError(InturnError):
    """The session has as many replies on their way out as it may have; its turns wait until one is out."""

    retryable = True


def delivery_of(payload: RespondPayload) -> Delivery | None:
    """Where the reply to this message is to go; None: nowhere, it is there for whoever asks."""
    if payload.channel is None or not payload.address:
        return None
    return Delivery(channel=payload.channel, address=payload.address)


def post(runtime: Runtime, payload: RespondPayload, response: Response) -> None:
    """Have the reply of a committed turn delivered, if it is to be.

    Call it before the turn leaves its mailbox: then a crash in between has the turn looked at again, and
    this repeated, which changes nothing. Raises `OutboxFullError`, `MailboxError`.
    """
    delivery = delivery_of(payload)
    if delivery is None or not response.message.strip():
        return
    offered = runtime.deliveries.offer(payload.session_id, response.turn_id, delivery.channel)
    if offered.outcome == "full":
        raise OutboxFullError
    if offered.publish:
        try:
            publish_delivery(runtime.app, payload.session_id)
        except MailboxError as error:
            # It waits in its mailbox, where a sweep finds it. Whatever the broker has against its message,
            # the turn is committed, and those behind it must not wait for that.
            log.warning("delivery not published yet", error=type(error.__cause__ or error).__name__)
