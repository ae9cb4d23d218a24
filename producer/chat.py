"""Chat: the page at `/chat`, which talks to the web API as any other program does."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response, status

from .problems import not_found

router = APIRouter(include_in_schema=False)

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""What the page may load and do: its own files and the API; nothing in what was said can become code."""

_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FILES = {path.name: path.read_bytes() for path in (Path(__file__).parent / "chat").iterdir()}


@router.get("/chat")
def page(request: Request) -> Response:
    """The page itself; anybody may have it, and see nothing but it."""
    return _answer(request, "index.html", {"Content-Security-Policy": POLICY})


@router.get("/chat/{name}")
def part(request: Request, name: str) -> Response:
    """A file that the page is made of."""
    if name == "index.html" or name not in _FILES:
        raise not_found("file")
    return _answer(request, name, {})


def _answer(request: Request, name: str, headers: dict[str, str]) -> Response:
    content = _FILES[name]
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    # Asked for each time, and sent only when it has changed: all parts are of one release.
    headers = {"Cache-Control": "no-cache", "ETag": tag, **headers}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(content, media_type=_TYPES[Path(name).suffix], headers=headers)
