"""Deliveries: the replies on their way out, in Redis: where they wait, and what became of some."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

from inturn.contract import DeliveryNote, DeliveryView, decode_note
from inturn.errors import InturnError
from inturn.settings import Settings
from inturn.tracing import here
from inturn.turns.mailbox import Item, Mailbox, Offered
from inturn.turns.outcomes import Outcomes

if TYPE_CHECKING:
    from redis import Redis


class Deliveries:
    """All deliveries on one Redis (or Valkey) server or cluster.

    `mailbox` holds, for each session, those that wait, in order of their turns: it is a mailbox as that of
    the turns, with a lease of its own. The replies themselves are in the store. Raises
    `MailboxUnavailableError` where Redis cannot be reached, `MailboxError` where it refuses.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.mailbox = Mailbox(redis, settings, prefix=f"{settings.key_prefix}-out")
        self.outcomes = Outcomes(redis, settings)

    def offer(self, session_id: str, turn_id: str, channel: str) -> Offered:
        """Append a turn's delivery to its session's out mailbox, unless it is known there."""
        return self._offer(session_id, turn_id, DeliveryNote(turn_id=turn_id, channel=channel))

    def offer_again(self, session_id: str, turn_id: str) -> Offered:
        """Ask for one more try of a delivery that ended as unknown or failed, behind those that wait."""
        note = DeliveryNote(turn_id=turn_id, again=True)
        return self._offer(session_id, f"{turn_id}~{secrets.token_hex(8)}", note)

    def overview(self, session_id: str | None = None) -> Iterator[DeliveryView]:
        """Those that wait, in each session in order, then those that ended `unknown`, `failed` or `doubtful`.

        With a `session_id` only this session's.
        """
        waiting = set()
        for item in self.mailbox.items(session_id):
            if (view := _waiting(item)) is not None:
                waiting.add((view.session_id, view.turn_id))
                yield view
        for view in self.outcomes.read():
            if session_id in (None, view.session_id) and (view.session_id, view.turn_id) not in waiting:
                yield view

    def _offer(self, session_id: str, item_id: str, note: DeliveryNote) -> Offered:
        note.traceparent, note.tracestate = here()
        return self.mailbox.offer(session_id, item_id, note.model_dump_json(exclude_none=True))


def _waiting(item: Item) -> DeliveryView | None:
    try:
        note = decode_note(item.payload)
    except InturnError:  # of a newer release, or no note at all; its worker will say so
        return None
    return DeliveryView(
        session_id=item.session_id,
        turn_id=note.turn_id,
        channel=note.channel,
        state="sending" if item.running else "waiting",
        attempts=item.attempts,
        since=note.accepted_at,
    )
