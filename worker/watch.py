"""Watch: turns and deliveries as metrics, traces and logs show them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import datetime

import structlog

from inturn.agent.turn import INTERRUPTED
from inturn.contract import DeliveryNote, TurnResult
from inturn.metrics import counting
from inturn.session.state import Delivery, utcnow
from inturn.tracing import Origin, Span, span, trace_ids
from inturn.turns import Head

from .asked import Asked

log = structlog.get_logger(__name__)


class TurnWatch:
    """One try of the turn at the head of a session's mailbox."""

    def __init__(self, session_id: str, head: Head) -> None:
        self._session_id = session_id
        self._head = head
        self._kind = "unknown"
        self._waited: float | None = None
        self.looked = 0.0
        """When it was last asked whether the turn is erased, on the monotonic clock; 0: never."""
        self.trace: dict[str, str] = {}
        """The IDs of this try's trace and span, for logs; empty without one."""
        self._span = Span()

    def begin(self, asked: Asked) -> Span:
        """Note what the turn is asked to do, and how long it has waited; gives the span of this try.

        It goes on with the trace of whoever enqueued the turn, and has links to those of the turns merged
        into it.
        """
        head = self._head
        payloads = [asked.payload, *asked.further.values()]
        waits = [_since(payload.accepted_at) for payload in payloads]
        self._kind = asked.payload.kind
        self._waited = round(waits[0], 3)
        if head.attempts == 1 and (metrics := counting()) is not None:
            for wait in waits:
                metrics.turn_wait.labels(self._kind).observe(wait)
        origin, *merged = (Origin(payload.traceparent, payload.tracestate) for payload in payloads)
        self._span = span(
            "turn",
            {
                "inturn.session.id": self._session_id,
                "inturn.turn.id": head.turn_id,
                "inturn.turn.kind": self._kind,
                "inturn.turn.attempt": head.attempts,
                "inturn.turn.merged": len(merged),
                "gen_ai.conversation.id": self._session_id,
            },
            kind="consumer",
            origin=origin,
            links=merged,
        )
        return self._span

    def tried(self, results: Sequence[TurnResult], why: str = "") -> None:
        """Note in the span what this try came to: these results, or none yet, for that class of error."""
        self.trace = trace_ids()
        failed = why or next((result.error.type for result in results if result.error is not None), "")
        if failed:
            self._span.fail(failed)

    def put_off(self, why: str) -> None:
        """Count that the turn is tried again later, for that class of error."""
        if (metrics := counting()) is not None:
            metrics.turn_retries.labels(why).inc()

    def end(self, results: Sequence[TurnResult], seconds: float) -> None:
        """Tell of the turns that have ended, once their results are stored; the try took so many seconds."""
        metrics = counting()
        if metrics is not None:
            metrics.turn.labels(self._kind).observe(seconds)
        for result in results:
            outcome = _outcome(result)
            if metrics is not None:
                metrics.turns.labels(result.kind, outcome).inc()
            log.info(
                "turn ended",
                session_id=self._session_id,
                turn_id=result.turn_id,
                kind=result.kind,
                outcome=outcome,
                attempt=self._head.attempts,
                waited=self._waited,
                seconds=round(seconds, 3),
                **self.trace,
            )


def delivery_span(session_id: str, note: DeliveryNote, attempt: int) -> Span:
    """The span of one try of a delivery, in the trace of its turn."""
    about = {
        "inturn.session.id": session_id,
        "inturn.turn.id": note.turn_id,
        "inturn.delivery.channel": note.channel,
        "inturn.delivery.attempt": attempt,
    }
    return span("deliver", about, kind="consumer", origin=Origin(note.traceparent, note.tracestate))


def count_delivery(delivery: Delivery, channels: Container[str]) -> None:
    """Count a delivery that is over; `channels` are those that this process has."""
    if (metrics := counting()) is not None:
        # What a producer calls a channel may be anything.
        channel = delivery.channel if delivery.channel in channels else "other"
        metrics.deliveries.labels(channel, delivery.state).inc()


def count_delivery_seconds(channel: str, accepted_at: datetime) -> None:
    """Count how long a reply took to be out, or given up, since its turn was committed."""
    if (metrics := counting()) is not None:
        metrics.delivery.labels(channel).observe(_since(accepted_at))


def count_delivery_retry(channel: str) -> None:
    """Count a try of a delivery that was put off."""
    if (metrics := counting()) is not None:
        metrics.delivery_retries.labels(channel).inc()


def _since(then: datetime) -> float:
    # Another machine's clock may be ahead of ours.
    return max(0.0, (utcnow() - then).total_seconds())


def _outcome(result: TurnResult) -> str:
    if result.error is not None:
        return "failed"
    return INTERRUPTED if result.response.finish_reason == INTERRUPTED else "done"
