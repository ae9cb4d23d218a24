"""Events: a turn as it goes on, as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from time import monotonic
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from inturn.audit import act_as
from inturn.ids import session_of_turn
from inturn.turns import Sight

from .auth import Asks, Caller, Credentials, admit
from .descriptions import READ
from .problems import Refusal, not_found
from .runtime import Runtime, Web
from .tickets import TICKET_SECONDS
from .views import TurnId
from .watch import LAST_ID, Event, Watch
from .watcher import Watcher

router = APIRouter(tags=["turns"])

HEARTBEAT_SECONDS = 15.0
"""How often a stream without news says that it is alive; also how soon a reader that vanished is missed."""
LONGEST_STREAM = 900.0
"""Seconds after which a stream ends although its turn does not: the reader comes again."""
RETRY_MS = 1000
"""When a browser that was cut off is to come again."""

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events: `state`, `piece` and, as the last one, `done` or `failed`",
        "content": {
            "text/event-stream": {
                "itemSchema": {
                    "type": "object",
                    "properties": {
                        "event": {"enum": ["state", "piece", "done", "failed"]},
                        "data": {"type": "string", "description": "JSON, by `event`"},
                        "id": {"type": "string"},
                    },
                }
            }
        },
    },
    204: {"description": "The reader has had the last event; a browser stops asking"},
}


class Ticket(BaseModel):
    """Where the events of a turn can be read without a header, for `expires_in` seconds."""

    events: str
    expires_in: int


class EventStream(EventSourceResponse):
    """The events of a watch; while they are sent, and no longer, its turn is watched."""

    def __init__(self, watcher: Watcher, watch: Watch, user_id: str | None) -> None:
        # A proxy that collects what passes would hold the text back.
        super().__init__(_told(watch), headers={"X-Accel-Buffering": "no"})
        self._watching = watcher.watching(watch, user_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them until the last one, or until the reader is gone."""
        with self._watching:
            await super().__call__(scope, receive, send)


@router.get("/turns/{turn_id}/events", response_class=Response, responses={**_STREAM, **READ})
async def events(
    turn_id: TurnId,
    web: Web,
    request: Request,
    credentials: Credentials,
    last_event_id: Annotated[str, Header(description="Go on behind this event.")] = "",
    ticket: Annotated[str | None, Query(max_length=100, description="Instead of a header.")] = None,
) -> Response:
    """Follow a turn to its end.

    - `state`: `{"status": "waiting", "ahead": 2}` or `{"status": "running", "ahead": 0}`, when that changes.
    - `piece`: `{"text": "...", "restarts": false}`, text of the reply as it is written; with `restarts` all
      text before it is void.
    - `done` or `failed`: the turn as `GET /turns/{id}` shows it. It is the last event: close the connection.

    With the `id` of an event as `Last-Event-ID` a reader goes on exactly behind it. A stream may end without
    a last event, after 15 minutes or when the server stops: come again.
    """
    if ticket is not None:
        caller = await run_in_threadpool(web.tickets.holder, ticket, turn_id)
        if caller is None:
            raise Refusal(401, "not-signed-in", "the ticket is not for this turn, or too old: get a new one")
        act_as(caller.name)
    else:
        caller = await admit(request, credentials)
    if last_event_id == LAST_ID:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    watch = Watch(session_of_turn(turn_id), turn_id, after=last_event_id)
    if not web.watcher.has_room(caller.user_id):
        raise Refusal(503, "too-many-readers", "too many event streams are open", {"Retry-After": "5"})
    watch.see(await run_in_threadpool(_first_sight, web, caller, watch))
    return EventStream(web.watcher, watch, caller.user_id)


@router.post("/turns/{turn_id}/tickets", status_code=status.HTTP_201_CREATED, responses=READ)
def issue_ticket(turn_id: TurnId, web: Web, caller: Asks) -> Ticket:
    """Get an address at which a browser's `EventSource`, which sends no headers, can read the turn's events.

    It opens these events and nothing else.
    """
    web.access.check(caller, session_of_turn(turn_id), "turn")
    ticket = web.tickets.issue(caller, turn_id)
    address = f"/turns/{quote(turn_id, safe='')}/events?ticket={ticket}"
    return Ticket(events=address, expires_in=TICKET_SECONDS)


def _first_sight(web: Runtime, caller: Caller, watch: Watch) -> Sight:
    """Look at the turn for the first time; raises `Refusal` with 404 for one that the caller may not see."""
    web.access.check(caller, watch.place.session_id, "turn")
    (sight,) = web.client.look([watch.place])
    if sight.result is None and sight.view.state == "unknown" and not sight.entries:
        raise not_found("turn")
    return sight


async def _told(watch: Watch) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RETRY_MS)
    ends = monotonic() + LONGEST_STREAM
    while monotonic() < ends:
        event = await watch.next_event(HEARTBEAT_SECONDS)
        if event is not None:
            yield _encoded(event)
        elif watch.is_over:
            return
        else:
            yield KEEPALIVE_COMMENT


def _encoded(event: Event) -> bytes:
    data = json.dumps(event.data, ensure_ascii=False)
    return format_sse_event(event=event.kind, data_str=data, id=event.id)
