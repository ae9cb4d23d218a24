"""Chat: the page at `/chat`, which talks to the web API as any other program does."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response

from .files import Files
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

_FILES = Files(Path(__file__).parent / "chat")


@router.get("/chat")
def page(request: Request) -> Response:
    """The page itself; anybody may have it, and see nothing but it."""
    return _FILES.answer(request, "index.html", {"Content-Security-Policy": POLICY})


@router.get("/chat/{name}")
def part(request: Request, name: str) -> Response:
    """A file that the page is made of."""
    if name == "index.html":
        raise not_found("file")
    return _FILES.answer(request, name)
