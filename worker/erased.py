"""Erased: turns that were accepted before somebody was erased leave nothing behind, however late they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog

from inturn.contract import Payload, Response, TurnFault, TurnResult, decode_payload
from inturn.errors import InturnError, InvalidInputError, SessionErasedError
from inturn.ids import session_of_turn
from inturn.persistence.guarded import GuardedAdapter
from inturn.persistence.opening import layer_of
from inturn.persistence.tombstones import SLOW_SECONDS, TurnInHand
from inturn.turns import Head

from .runtime import Runtime

log = structlog.get_logger(__name__)

ERASED = SessionErasedError.__name__
"""The type of the fault of such a turn: it has a result, and is no dead letter."""


BARE_SECONDS = 600.0
"""How much older a turn may be that was sent without this library: nobody has noted when it was, and it may
have been in a paused worker's hand while its user was erased."""


def in_hand(payloads: dict[str, Payload]) -> TurnInHand:
    """The turns of these payloads, which are taken up now."""
    return TurnInHand(
        turn_ids=tuple(payloads),
        user_ids=frozenset(each.user_id for each in payloads.values() if each.user_id is not None),
        accepted_at=min(_accepted_at(turn_id, each) for turn_id, each in payloads.items()),
        began=time.monotonic(),
    )


def _accepted_at(turn_id: str, payload: Payload) -> datetime:
    try:
        session_of_turn(turn_id)
    except InvalidInputError:
        return payload.accepted_at - timedelta(seconds=BARE_SECONDS)
    return payload.accepted_at


def erased(session_id: str, turn_ids: Sequence[str], attempts: int) -> list[TurnResult]:
    """The results of turns whose session, or user, was erased: that it was, and nothing that was said."""
    fault = TurnFault(type=ERASED, message=str(SessionErasedError()), attempts=attempts)
    return [
        TurnResult(
            kind="respond",
            session_id=session_id,
            turn_id=turn_id,
            state="failed",
            response=Response(message="", session_id=session_id, turn_id=turn_id, finish_reason="failed"),
            error=fault,
        )
        for turn_id in turn_ids
    ]


def keep(
    runtime: Runtime,
    session_id: str,
    head: Head,
    ended: Sequence[TurnResult],
    since: float,
    store: Callable[[Sequence[TurnResult]], None],
) -> Sequence[TurnResult]:
    """Have `store` keep what turns have ended with, and return it; in its place only that they are erased.

    `since` is when they were taken up, or when their commit asked whether they are erased. Only what is long
    ago is looked at: this process may have been paused, and its user erased, since it was committed. Raises
    `StoreError` where that cannot be seen.
    """
    looked = time.monotonic()
    if looked - since > SLOW_SECONDS and _is_erased(runtime, session_id, head):
        ended = erased(session_id, head.turn_ids, head.attempts)
    store(ended)
    if time.monotonic() - looked > SLOW_SECONDS and _is_erased(runtime, session_id, head):
        # Paused in the middle of this, of all places.
        ended = erased(session_id, head.turn_ids, head.attempts)
        runtime.dead_letters.remove_session(session_id)
        store(ended)
    return ended


def _is_erased(runtime: Runtime, session_id: str, head: Head) -> bool:
    payloads: dict[str, Any] = {}
    for turn_id, text in ((head.turn_id, head.payload), *head.merged):
        with suppress(InturnError):  # nothing of it is known, and nothing of it is told
            payloads[turn_id] = decode_payload(text)
    guarded = layer_of(runtime.adapter, GuardedAdapter)
    if not payloads or guarded is None:
        return False
    try:
        guarded.tombstones.check(in_hand(payloads), session_id)
    except SessionErasedError:
        log.info("turn erased: it was accepted before its user was", turn_id=head.turn_id)
        return True
    return False
