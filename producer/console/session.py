"""Session: the list of sessions, and all there is to see of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from inturn.contract import RespondPayload, decode_payload
from inturn.errors import InturnError, StoreError, StoreUnavailableError
from inturn.ids import check_id
from inturn.persistence import MessageQuery, SessionQuery
from inturn.session.state import Message, SessionState, Status, utcnow
from inturn.turns.mailbox import Item

from ..auth import Caller
from ..runtime import Runtime, Web
from ..sessions import MOST_SEQUENCE
from ..views import SessionId
from .acts import OUTCOMES
from .door import Signed
from .pages import PREFIX, ConsoleRoute, answer, base_of, encoded, go_to, with_query

router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=ConsoleRoute)

PAGE = 50
"""Sessions, or lines of a history, on one page."""
MOST_TURNS = 100
"""Waiting turns that are shown of a session."""
OWN_NOTES = "inturn:"
"""What the IDs of sessions begin with that nobody has had: notes of inturn's own in the store."""

Age = Literal["", "in-1h", "in-1d", "in-7d", "in-30d", "not-1d", "not-7d", "not-30d"]
Order = Literal["newest", "oldest"]
_SPANS = {
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}


@dataclass(frozen=True, slots=True)
class WaitingTurn:
    """A turn in the mailbox. `said` is what it brings along; None: it is no message, or cannot be read."""

    turn_id: str
    kind: str
    is_running: bool
    place: int
    attempts: int
    user_id: str | None = None
    channel: str | None = None
    accepted_at: datetime | None = None
    said: str | None = None


class Pulse(BaseModel):
    """What the page of a session asks for again and again: whether there is something new to load."""

    tag: str
    lease_seconds: float


@router.get("/sessions")
def sessions(
    request: Request,
    web: Web,
    _: Signed,
    status: Literal["", "active", "completed", "abandoned"] = "",
    user: Annotated[str, Query(max_length=300)] = "",
    age: Age = "",
    order: Order = "newest",
    cursor: Annotated[str, Query(max_length=2000)] = "",
    note: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """The sessions that are asked for, page by page, by the time of their last change."""
    query = _query(status or None, user, age, order, cursor)
    with web.store.use() as adapter:
        page = adapter.find_sessions(query)
    shown = [each for each in page.items if not _is_own_note(each)]
    wanted = {"status": status, "user": user, "age": age, "order": order if order == "oldest" else ""}
    address = f"{base_of(request)}/sessions"
    return answer(
        request,
        "sessions.html",
        sessions=shown,
        waiting=web.mailbox.waiting([each.id for each in shown]) if shown else set(),
        status=status,
        user=user,
        age=age,
        order=order,
        note=OUTCOMES.get(note),
        first=with_query(address, **wanted) if cursor else None,
        next=with_query(address, **wanted, cursor=page.cursor) if page.cursor else None,
    )


@router.get("/open")
def open_session(request: Request, _: Signed, session: Annotated[str, Query(max_length=300)]) -> Response:
    """Go to the session of this ID."""
    return go_to(f"{base_of(request)}/sessions/{encoded(check_id(session.strip()))}")


@router.get("/sessions/{session_id}")
def session(
    session_id: SessionId,
    request: Request,
    web: Web,
    operator: Signed,
    before: Annotated[int | None, Query(ge=1, le=MOST_SEQUENCE)] = None,
    note: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Everything of one session; what was said page by page, the end of it first."""
    # In this order: what changes after the tag was made makes the page ask again.
    tag = _tag(web, session_id)
    holding = web.desk.holdings.look(session_id)
    items = list(web.mailbox.items(session_id))
    is_away, reason = False, ""
    found: SessionState | None = None
    lines: list[Message] = []
    earlier: int | None = None
    try:
        found = web.access.read(Caller(f"console:{operator.name}"), session_id)
        lines, earlier = _history(web, found, before)
    except StoreUnavailableError:
        # What Redis knows is of use just then.
        web.desk.note("read", "console_session", [session_id])
        is_away, found = True, None
    except StoreError as error:
        # A key is missing, or a row is damaged: the rest is of use, and so is a way to erase it.
        reason = str(error)
    return answer(
        request,
        "session.html",
        id=session_id,
        session=found,
        is_away=is_away,
        reason=reason,
        tag=tag,
        holding=holding,
        turns=_turns(web, session_id, items[:MOST_TURNS]),
        waiting=len(items),
        lines=lines,
        earlier=earlier,
        is_latest=before is None,
        deliveries=found.outbox if found is not None else {},
        out=[view for view in web.client.deliveries(session_id) if view.state in ("waiting", "sending")],
        letters=web.client.dead.find(session_id)[::-1],
        note=OUTCOMES.get(note),
    )


@router.get("/sessions/{session_id}/pulse")
def pulse(session_id: SessionId, web: Web, _: Signed) -> Pulse:
    """Whether something has happened, without a look at what it is."""
    return Pulse(tag=_tag(web, session_id), lease_seconds=web.desk.holdings.look(session_id).seconds)


def _query(status: Status | None, user: str, age: Age, order: Order, cursor: str) -> SessionQuery:
    kind, _, span = age.partition("-")
    edge = utcnow() - _SPANS[span] if span else None
    return SessionQuery(
        user_id=check_id(user, "user ID") if user else None,
        status=status,
        newer_than=edge if kind == "in" else None,
        older_than=edge if kind == "not" else None,
        order=order,
        cursor=cursor or None,
        limit=PAGE,
        unreadable=True,
    )


def _is_own_note(session: SessionState) -> bool:
    return session.id.startswith(OWN_NOTES) and session.agent_name == "inturn"


def _tag(web: Runtime, session_id: str) -> str:
    return f"{web.desk.holdings.tag(session_id)}-{web.desk.out_holdings.tag(session_id)}"


def _history(
    web: Runtime, session: SessionState | None, before: int | None
) -> tuple[list[Message], int | None]:
    """A page of what was said, in order, and before which line the page before it ends."""
    if session is None:
        return [], None
    query = MessageQuery(session_id=session.id, before=before, order="newest", limit=PAGE)
    with web.store.use() as adapter:
        page = adapter.find_messages(query)
    lines = page.items[::-1]
    return lines, lines[0].sequence if page.cursor is not None else None


def _turns(web: Runtime, session_id: str, items: Sequence[Item]) -> list[WaitingTurn]:
    # Of turns that were merged only the first one is known as running to the mailbox's list.
    views = web.mailbox.look_all([(session_id, item.turn_id) for item in items]) if items else []
    return [
        _turn(item, place, is_running=item.running or view.state == "running")
        for place, (item, view) in enumerate(zip(items, views, strict=True))
    ]


def _turn(item: Item, place: int, *, is_running: bool) -> WaitingTurn:
    try:
        payload = decode_payload(item.payload)
    except InturnError:
        return WaitingTurn(item.turn_id, "unreadable", is_running, place, item.attempts)
    message = payload if isinstance(payload, RespondPayload) else None
    return WaitingTurn(
        item.turn_id,
        payload.kind,
        is_running,
        place,
        item.attempts,
        payload.user_id,
        None if message is None else message.channel,
        payload.accepted_at,
        None if message is None else message.message,
    )
