"""Lists: the dead letters of all sessions, what one of them says, and the deliveries to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response

from inturn.contract import DeliveryView

from ..problems import not_found
from ..runtime import Web
from .acts import OUTCOMES
from .door import Signed
from .pages import PREFIX, ConsoleRoute, answer

T = TypeVar("T")
router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=ConsoleRoute)

PAGE = 50
"""Letters, or deliveries, on one page."""
DeliveryState = Literal["", "waiting", "sending", "unknown", "failed", "doubtful"]


@router.get("/dead-letters")
def dead_letters(
    request: Request,
    web: Web,
    _: Signed,
    error: Annotated[str, Query(max_length=200)] = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    note: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """The turns that failed, the last ones first."""
    found = web.client.dead.find()[::-1]
    errors = sorted({letter.error.type for letter in found} | ({error} if error else set()))
    if error:
        found = [letter for letter in found if letter.error.type == error]
    shown = _some(found, page)
    web.desk.note("read", "console_dead_letters", list({letter.session_id: None for letter in shown}))
    return answer(
        request,
        "dead_letters.html",
        letters=shown,
        total=len(found),
        errors=errors,
        error=error,
        page=page,
        pages=_pages(found),
        note=OUTCOMES.get(note),
    )


@router.get("/dead-letters/letter")
def dead_letter(
    request: Request,
    web: Web,
    _: Signed,
    session: Annotated[str, Query(max_length=300)],
    turn: Annotated[str, Query(max_length=1200)],
) -> Response:
    """One of them, with what was said."""
    letter = web.client.dead.get(turn, session)
    if letter is None:
        raise not_found("dead letter")
    web.desk.note(
        "read", "console_dead_letter", [letter.session_id], user_id=letter.user_id, turn_id=letter.turn_id
    )
    return answer(request, "dead_letter.html", letter=letter, payload=web.client.dead.payload(letter))


@router.get("/deliveries")
def deliveries(
    request: Request,
    web: Web,
    _: Signed,
    state: DeliveryState = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    note: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """The replies that wait to go out, and those that did not simply arrive."""
    found = [view for view in web.client.deliveries() if not state or _is(view, state)]
    shown = _some(found, page)
    web.desk.note("read", "console_deliveries", list({view.session_id: None for view in shown}))
    return answer(
        request,
        "deliveries.html",
        deliveries=shown,
        total=len(found),
        state=state,
        page=page,
        pages=_pages(found),
        note=OUTCOMES.get(note),
    )


def _is(view: DeliveryView, state: DeliveryState) -> bool:
    return view.doubtful if state == "doubtful" else view.state == state


def _some(found: list[T], page: int) -> list[T]:
    return found[(page - 1) * PAGE : page * PAGE]


def _pages(found: Sequence[object]) -> int:
    return max(1, -(-len(found) // PAGE))
