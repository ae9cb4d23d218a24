"""Tracing: spans of OpenTelemetry where this process has a tracer provider; elsewhere nothing, at no cost.

Nothing that anybody has said is in a span: no message, no argument of a tool, no text of an error.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from inturn.errors import MissingDriverError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

LOOK_EVERY = 1.0
"""Seconds between two looks for a tracer provider, as long as there is none."""

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | bool | int | float | list[str] | None]


class Origin(NamedTuple):
    """Where a trace comes from, as W3C has it: `traceparent`, and what its vendors say, `tracestate`."""

    parent: str | None = None
    state: str | None = None


class Span:
    """A span, open while its block runs; what the block raises is its `error.type`. This one is none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def set(self, attributes: Attributes) -> None:
        """Add attributes; those that are None are left out."""

    def fail(self, kind: str) -> None:
        """Mark as failed, with the class of an error."""

    def rename(self, name: str) -> None:
        """Give it another name, once it is known."""


class _RealSpan(Span):
    def __init__(self, span: Any, *, current: bool) -> None:
        self._span = span
        self._current = current
        self._token: Any = None

    def __enter__(self) -> Self:
        if self._current:
            from opentelemetry import context, trace

            self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self.fail(type(error).__name__)
        if self._token is not None:
            from opentelemetry import context

            context.detach(self._token)
        self._span.end()

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes({key: value for key, value in attributes.items() if value is not None})

    def fail(self, kind: str) -> None:
        from opentelemetry.trace import StatusCode

        # Not the error's own words, nor its traceback: they may quote the user.
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)

    def rename(self, name: str) -> None:
        self._span.update_name(name)


_NO_SPAN = Span()
_KEY = r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_MEMBER = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")
"""One vendor's part of `tracestate`, in W3C's form."""
_MOST_MEMBERS = 32
_LONGEST_STATE = 512
"""Characters of a `tracestate` that W3C wants to have carried; nobody need carry more."""
_tracer: Tracer | None = None
_next_look = 0.0


def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: Kind = "internal",
    origin: Origin | None = None,
    links: Iterable[Origin] = (),
    current: bool = True,
) -> Span:
    """Make a span; it ends with its `with` block.

    It belongs to the span that is current here, or to `origin`; `links` are further traces that it has to do
    with. `current=False` is for blocks that are left and entered again, as generators are: spans in there
    do not belong to it.
    """
    tracer = _find_tracer()
    if tracer is None:
        return _NO_SPAN
    from opentelemetry import trace

    parents = [_context(each) for each in links]
    made = tracer.start_span(
        name,
        context=None if origin is None else _context(origin),
        kind=trace.SpanKind[kind.upper()],
        links=[
            trace.Link(found)
            for found in (trace.get_current_span(each).get_span_context() for each in parents)
            if found.is_valid
        ],
        # What it raises says too much.
        record_exception=False,
        set_status_on_exception=False,
    )
    real = _RealSpan(made, current=current)
    if attributes:
        real.set(attributes)
    return real


def detail(
    name: str, attributes: Attributes | None = None, *, kind: Kind = "internal", current: bool = True
) -> Span:
    """A span within another one; where there is none, nothing: it would be a trace of its own."""
    if _find_tracer() is None:
        return _NO_SPAN
    from opentelemetry import trace

    if not trace.get_current_span().get_span_context().is_valid:
        return _NO_SPAN
    return span(name, attributes, kind=kind, current=current)


def here() -> Origin:
    """What whoever goes on with this trace elsewhere must be told; empty where there is none."""
    if _find_tracer() is None:
        return Origin()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return Origin(carrier.get("traceparent"), carrier.get("tracestate") or None)


def trace_ids() -> dict[str, str]:
    """The IDs of the current trace and span, for logs; empty where there is none."""
    if _find_tracer() is None:
        return {}
    from opentelemetry import trace

    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}


def start_tracing(process: str) -> Callable[[], None]:
    """Send this process's spans to the collector that the `OTEL_...` variables name; returns what ends it.

    `process` becomes the service's name, `inturn-<process>`, unless `OTEL_SERVICE_NAME` gives another. Call
    it after a fork. Where the application has a tracer provider already, that one is used. Raises
    `MissingDriverError` without the extra `telemetry`.
    """
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingDriverError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and there is no {error.name}; install "
            "inturn[telemetry]"
        ) from None
    ours = Resource.create({"service.name": f"inturn-{process}", "service.version": version("inturn")})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    global _next_look
    _next_look = 0.0
    return provider.shutdown


def _find_tracer() -> Tracer | None:
    global _tracer, _next_look
    if _tracer is None and (now := time.perf_counter()) >= _next_look:
        trace = sys.modules.get("opentelemetry.trace")
        if trace is not None:
            provider = trace.get_tracer_provider()
            if not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
                _tracer = provider.get_tracer("inturn", version("inturn"))
                return _tracer
        _next_look = now + LOOK_EVERY
    return _tracer


def _context(origin: Origin) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    given = {"traceparent": origin.parent, "tracestate": _sound(origin.state or "")}
    carrier = {key: value for key, value in given.items() if value}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def _sound(state: str) -> str | None:
    """The `tracestate`, if it is one: anybody may send one, and OpenTelemetry logs pieces of what is none."""
    if len(state) > _LONGEST_STATE:
        return None
    members = [member for each in state.split(",") if (member := each.strip(" \t"))]
    keys = {match[1] for member in members if (match := _MEMBER.fullmatch(member))}
    return ",".join(members) if len(keys) == len(members) <= _MOST_MEMBERS else None
