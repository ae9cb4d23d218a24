"""Pages: how what the console has to say becomes HTML, and what every answer of it is sent with."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from inturn.session.state import utcnow

from ..problems import problem_of

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""What a page may load and do: its own files and forms; nothing in what was said can become code."""
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    # Not `no-referrer`: with that a browser does not say from which site a form comes.
    "Referrer-Policy": "same-origin",
}
"""Sent where the handler says nothing else."""
PREFIX = "/console"
LONGEST_NEXT = 2000
"""Characters of an address that one comes to after signing in."""
_SIZES = (("d", 86_400), ("h", 3600), ("min", 60))


class SignInNeeded(Exception):
    """Whoever asks is not signed in."""


class ConsoleRoute(APIRoute):
    """A path of the console: whatever goes wrong is a page too, and all of it is for nobody's cache."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute.get_route_handler`."""
        handle = super().get_route_handler()

        async def handle_safely(request: Request) -> Response:
            try:
                response = await handle(request)
            except SignInNeeded:
                response = _to_sign_in(request)
            except Exception as error:
                response = await _error_page(request, error)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return handle_safely


def answer(request: Request, template: str, code: int = 200, /, **values: Any) -> Response:
    """A page made of a template and these values, all of which are text and nothing else."""
    values = {
        "base": base_of(request),
        "operator": getattr(request.state, "operator", None),
        "now": utcnow(),
        **values,
    }
    return Response(_TEMPLATES.get_template(template).render(values), code, media_type="text/html")


def go_to(address: str, /, **query: str) -> Response:
    """Send the browser there, which then asks with GET."""
    return Response(status_code=303, headers={"Location": with_query(address, **query)})


def with_query(address: str, /, **query: str | int | None) -> str:
    """An address with what is given of the query; its names may be any."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{address}?{urlencode(given, quote_via=quote, safe='')}" if given else address


def base_of(request: Request) -> str:
    """The path of the console as a browser knows it."""
    return f"{request.scope.get('root_path', '')}{PREFIX}"


def encoded(text: str) -> str:
    """A part of a path, or of a query."""
    return quote(text, safe="")


def ago(then: datetime, now: datetime) -> str:
    """How long ago it was, in its largest unit: `3 d`, `5 h`, `12 min`, `40 s`."""
    seconds = max(0, round((now - then).total_seconds()))
    for name, size in _SIZES:
        if seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds} s"


def _readable(value: Any) -> str:
    """A value as JSON, or the text itself."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _to_sign_in(request: Request) -> Response:
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        # Whoever follows a link from elsewhere may well be signed in: their browser does not say so, as it
        # has come from another site. It does when the page asks once more by itself.
        return answer(request, "again.html")
    wanted = ""
    if request.method == "GET":
        wanted = with_query(request.scope["path"], **dict(request.query_params))
        if len(wanted) > LONGEST_NEXT:
            wanted = ""  # the page where one signs in would refuse it
    return go_to(f"{base_of(request)}/login", next=wanted)


async def _error_page(request: Request, error: Exception) -> Response:
    response = await problem_of(request, error)
    page = answer(request, "error.html", response.status_code, problem=response.problem)
    for name in ("Retry-After", "Allow"):
        if name in response.headers:
            page.headers[name] = response.headers[name]
    return page


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(ago=ago, encoded=encoded, readable=_readable)
