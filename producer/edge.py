"""Edge: what happens to every request before and after its handler, whatever that does."""

from __future__ import annotations

from time import monotonic
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inturn.tracing import Origin, Span, span

from .metrics import Metrics
from .problems import unexpected

_CHECKS = {"/healthz", "/readyz", "/metrics"}
_METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Sent where the handler says nothing else."""
_NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
"""For answers that are no pages: even if a browser took one for such, it could do nothing."""


class Edge:
    """Measures requests, answers errors that nobody has thought of, and adds headers for browsers' safety.

    The path is handed on as it came, percent-encoded: only so is a slash in an ID another than one between
    two parts of the path. Whoever takes an ID from it decodes it.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        raw = scope.get("raw_path")
        path = quote(scope["path"]) if raw is None else raw.partition(b"?")[0].decode("latin-1")
        scope = {**scope, "path": path}  # a copy: the server logs its own
        with _span(scope) as traced:
            await self._handle(scope, receive, send, traced)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, traced: Span) -> None:
        began = monotonic()
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(message)
                self._measure(scope, message["status"], monotonic() - began, traced)
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:
            request = Request(scope)
            answer = unexpected(request, error)
            if not started:
                await answer(scope, receive, send_on)

    def _measure(self, scope: Scope, status: int, seconds: float, traced: Span) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route: Any = scope.get("route")
        template = getattr(route, "path", "none")
        self._metrics.seconds.labels(method, template, str(status)).observe(seconds)
        traced.rename(f"{method} {template}")
        traced.set({"http.route": template, "http.response.status_code": status})
        if status >= 500:
            traced.fail(str(status))


def _span(scope: Scope) -> Span:
    """A span that goes on with the trace of whoever asks; asking how this process is begins none."""
    if scope["path"] in _CHECKS:
        return Span()
    headers = Headers(scope=scope)
    origin = Origin(headers.get("traceparent"), headers.get("tracestate"))
    return span(scope["method"], {"http.request.method": scope["method"]}, kind="server", origin=origin)


def _add_headers(message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    if not headers.get("content-type", "").startswith("text/html"):
        headers.setdefault("Content-Security-Policy", _NO_PAGE)
