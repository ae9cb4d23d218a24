"""Routes: all paths of the console, and the files that its pages are made of."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.types import Scope

from ..files import Files
from ..problems import not_found
from . import doing, door, lists, overview, session
from .door import Signed
from .pages import PREFIX, ConsoleRoute

router = APIRouter()
_FILES = Files(Path(__file__).parent / "static")
_own = APIRouter(prefix=PREFIX, include_in_schema=False)
_rest = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=ConsoleRoute)


@_own.get("/static/{name}")
def static(request: Request, name: str) -> Response:
    """A style sheet, a script: anybody may have them."""
    return _FILES.answer(request, name)


@_rest.get("/{path:path}")
def nothing(path: str, _: Signed) -> Response:  # noqa: ARG001
    """Any other address: a page that says so, where the API would answer a problem."""
    raise not_found("page")


PARTS = (_own, door.router, overview.router, session.router, lists.router, doing.router, _rest)
"""In the order in which a path is looked for among them."""
for part in PARTS:
    router.include_router(part)


def is_ours(scope: Scope) -> bool:
    """Whether a request is for the console, whether or not there is one."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == PREFIX or path.startswith(f"{PREFIX}/")
