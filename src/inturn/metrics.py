"""Metrics: what a process counts of its turns once `start_counting` was called; before, nothing.

Labels take few values, and none of a user's. What each figure means is in docs/observability.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from inturn.errors import InturnError

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import CollectorRegistry

log = structlog.get_logger(__name__)

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds, for what a server does."""
_LONG = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
"""Seconds, for what a model does, and for whoever waits for it."""


class Metrics:
    """The figures of the process, or of all processes of a worker together."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Histogram

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"inturn_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, *labels: str, buckets: Iterable[float] = _LONG) -> Histogram:
            return Histogram(
                f"inturn_{name}_seconds", text, labels, registry=registry, buckets=tuple(buckets)
            )

        self.turn_wait = seconds("turn_wait", "From a turn's acceptance to its first try.", "kind")
        self.turn = seconds("turn", "One try of a turn that ended, to its stored result.", "kind")
        self.turns = counter("turns", "Turns that ended, by how.", "kind", "outcome")
        self.turn_retries = counter("turn_retries", "Tries put off, by the class of error.", "reason")
        self.woken = counter(
            "sessions_woken",
            "Sessions that a sweep has woken; crash: their owner was gone.",
            "queue",
            "reason",
        )
        self.lease_losses = counter("lease_losses", "Drives that ended without their lease.", "queue")
        self.conflicts = counter("conflicts", "Commits refused, for the session had moved on.", "writer")
        self.model = seconds("model", "One call of the model.", "model")
        self.first_token = seconds(
            "model_first_token", "To the first piece of a streamed answer of the model.", "model"
        )
        self.model_calls = counter(
            "model_calls", "Calls of the model, by how they ended.", "model", "outcome"
        )
        self.tokens = counter("model_tokens", "Tokens the model has read and written.", "model", "direction")
        self.cached_tokens = counter(
            "model_cached_tokens", "Tokens among the input that the provider had cached.", "model"
        )
        self.cost = counter("model_cost", "In the unit of the provider's price list.", "model")
        self.tool = seconds("tool", "One call of a tool.", "tool", buckets=(*_SHORT, 30, 60))
        self.tool_calls = counter("tool_calls", "Calls of tools, by how they ended.", "tool", "outcome")
        self.persistence = seconds("persistence", "One operation of the store.", "operation", buckets=_SHORT)
        self.slow_persistence = counter(
            "slow_persistence", "Operations of the store of more than 1,000 ms.", "operation"
        )
        self.delivery = seconds("delivery", "From a reply's commit to the end of its delivery.", "channel")
        self.deliveries = counter("deliveries", "Deliveries that ended, by how.", "channel", "outcome")
        self.delivery_retries = counter("delivery_retries", "Tries of deliveries put off.", "channel")

    def begin_at_zero(self) -> None:
        """Show what a worker may have to count before it has: the first of anything is a rise then, too."""
        for kind in ("respond", "save_session"):
            for outcome in ("done", "failed", "interrupted"):
                self.turns.labels(kind, outcome)
        for queue in ("turns", "deliveries"):
            self.lease_losses.labels(queue)
            for reason in ("crash", "overdue"):
                self.woken.labels(queue, reason)
        for writer in ("turn", "change"):
            self.conflicts.labels(writer)
        for operation in ("load", "commit"):
            self.slow_persistence.labels(operation)


_metrics: Metrics | None = None


def start_counting(registry: CollectorRegistry) -> Metrics:
    """Have all that happens in this process from now on counted in figures of this registry."""
    global _metrics
    _metrics = Metrics(registry)
    return _metrics


def counting() -> Metrics | None:
    """Where to count; None: nobody wants to know."""
    return _metrics


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> WSGIServer | None:
    """Answer Prometheus in a thread of its own; None, and a line in the log, if the port cannot be had."""
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        # Turns matter more than their figures.
        mend = "set INTURN_METRICS_PORT to a port that is free, and INTURN_METRICS_HOST to an address of ours"
        log.error("metrics not served", host=host, port=port, error=error.strerror, mend=mend)
        return None
    log.info("metrics ready", host=host, port=port)
    return server


def count_conflict(writer: str) -> None:
    """Count a commit that was refused; `writer` is who takes it again."""
    if _metrics is not None:
        _metrics.conflicts.labels(writer).inc()


def count_operation(operation: str, seconds: float, *, slow: bool) -> None:
    """Count an operation of the store."""
    if _metrics is not None:
        _metrics.persistence.labels(operation).observe(seconds)
        if slow:
            _metrics.slow_persistence.labels(operation).inc()


def count_woken(queue: str, *, crashed: bool) -> None:
    """Count a session that was woken by a sweep, for its turns or for its deliveries."""
    if _metrics is not None:
        _metrics.woken.labels(queue, "crash" if crashed else "overdue").inc()


def count_lost(queue: str) -> None:
    """Count a lease that was lost, of a session's turns or of its deliveries."""
    if _metrics is not None:
        _metrics.lease_losses.labels(queue).inc()


def kind_of(error: BaseException) -> str:
    """The class of an error as a label: ours and Python's own by name, for these are few."""
    known = isinstance(error, InturnError) or type(error).__module__ == "builtins"
    return type(error).__name__ if known else "other"
