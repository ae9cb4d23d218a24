"""traced: the trace of whoever enqueues a turn goes along in its payload, to whichever process takes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from inturn.contract import RespondPayload, SaveSessionPayload
from inturn.tracing import here, span


@contextmanager
def traced(payload: RespondPayload | SaveSessionPayload, turn_id: str) -> Iterator[None]:
    """Around the enqueueing of a turn: encode its payload inside."""
    about = {
        "inturn.session.id": payload.session_id,
        "inturn.turn.id": turn_id,
        "inturn.turn.kind": payload.kind,
    }
    with span("enqueue turn", about, kind="producer"):
        payload.traceparent, payload.tracestate = here()
        yield
