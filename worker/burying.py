"""Burying: turns that have failed go among the dead letters, before they leave their mailbox."""

from __future__ import annotations

from collections.abc import Sequence

from inturn.contract import DeadLetter, Payload, RespondPayload, TurnResult, decode_payload
from inturn.errors import InturnError
from inturn.turns import Head

from .asked import REFUSED
from .erased import ERASED
from .runtime import Runtime


def bury(runtime: Runtime, session_id: str, head: Head, ended: Sequence[TurnResult]) -> None:
    """Keep those of the turns in hand that have failed.

    Call it before they are finished: then a crash in between has them looked at again, and this repeated,
    which changes nothing. Raises `MailboxError`.
    """
    payloads = {head.turn_id: head.payload, **dict(head.merged)}
    for result in ended:
        text = payloads.get(result.turn_id)
        if result.error is None or text is None or result.error.type == ERASED:
            continue
        if result.response.finish_reason == REFUSED:
            continue  # run again, it would be refused again
        payload = _decoded(text)
        letter = DeadLetter(
            session_id=session_id,
            turn_id=result.turn_id,
            kind=None if payload is None else payload.kind,
            user_id=None if payload is None else payload.user_id,
            channel=payload.channel if isinstance(payload, RespondPayload) else None,
            error=result.error,
            accepted_at=None if payload is None else payload.accepted_at,
            merged_into=head.turn_id if head.merged else None,
            payload_bytes=len(text.encode()),
        )
        runtime.dead_letters.put(letter, text)


def _decoded(text: str) -> Payload | None:
    try:
        return decode_payload(text)
    except InturnError:
        return None
