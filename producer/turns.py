"""Turns over HTTP: enqueue one, ask what became of it, stop it."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Response, status
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from inturn.client import TurnHandle
from inturn.contract import OverlapPolicy
from inturn.ids import session_of_turn
from inturn.turns import Place, Sight
from inturn.turns.sight import END

from .auth import Asks, Caller
from .descriptions import READ, WRITE
from .runtime import Runtime, Web
from .views import SessionId, Turn, TurnId, view_turn
from .watch import Watch

router = APIRouter(tags=["turns"])

LONGEST_WAIT = 30.0
"""Seconds a request with `Prefer: wait=n` may wait; a longer wish is cut to this."""


class NewTurn(BaseModel):
    """A user's message.

    `user_id` is for API keys: a session belongs to the user of its first turn. `images` are `https:` or
    `data:image/` URLs. With `stream` the reply can be read while it is written. `overlap` and `quiet` say
    what happens if the session is busy, instead of the settings.
    """

    model_config = ConfigDict(extra="forbid")

    message: str = Field(examples=["A table for two, please."])
    user_id: str | None = None
    images: list[str] = Field(default_factory=list)
    stream: StrictBool = False
    overlap: OverlapPolicy | None = None
    quiet: float | None = Field(None, description="Seconds to wait for another message, with `merge`.")


class Stopped(BaseModel):
    """What the stop of a turn came to.

    `dropped`: it waited, and never runs. `signalled`: it runs, and ends with what it has said until then.
    `unknown`: it has ended, or never was.
    """

    turn_id: str
    outcome: Literal["dropped", "signalled", "unknown"]


@router.post(
    "/sessions/{session_id}/turns",
    status_code=status.HTTP_202_ACCEPTED,
    responses={200: {"model": Turn, "description": "The turn has ended"}, **WRITE},
)
async def enqueue(
    session_id: SessionId,
    turn: NewTurn,
    web: Web,
    caller: Asks,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, description="The sender's ID of this message: makes it safe to repeat."),
    ] = None,
    prefer: Annotated[
        str | None, Header(description="`wait=10` waits so many seconds for the reply.")
    ] = None,
) -> Turn:
    """Accept a message: 202 once it is safely in its session's mailbox.

    The same `Idempotency-Key` again adds nothing. `Prefer: wait=10` waits up to that many seconds, 30 at
    most, and answers 200 with the reply if it came in time; a server with too many that wait answers 202 at
    once.
    """
    handle, sight = await run_in_threadpool(_accept, web, caller, session_id, turn, idempotency_key)
    wait = _wish(prefer)
    if wait and web.watcher.has_room(caller.user_id):
        response.headers["Preference-Applied"] = f"wait={wait:g}"
        if sight.result is None:
            with web.watcher.watching(Watch(session_id, handle.turn_id), caller.user_id) as watch:
                sight = sight._replace(result=await watch.end(wait))
    response.headers["Location"] = f"/turns/{quote(handle.turn_id, safe='')}"
    if sight.result is not None:
        response.status_code = status.HTTP_200_OK
    view = view_turn(session_id, handle.turn_id, sight)
    view.ahead = handle.ahead
    return view


@router.get("/turns/{turn_id}", responses=READ)
def look(turn_id: TurnId, web: Web, caller: Asks) -> Turn:
    """Tell where a turn stands, with its reply if it is done."""
    session_id = session_of_turn(turn_id)
    web.access.check(caller, session_id, "turn")
    (sight,) = web.client.look([Place(session_id, turn_id, after=END)])
    return view_turn(session_id, turn_id, sight)


@router.delete("/turns/{turn_id}", status_code=status.HTTP_202_ACCEPTED, responses=READ)
def stop(turn_id: TurnId, web: Web, caller: Asks) -> Stopped:
    """Drop a turn that waits, or stop one that runs: it ends with its next piece of text. May be repeated."""
    session_id = session_of_turn(turn_id)
    web.access.check(caller, session_id, "turn")
    return Stopped(turn_id=turn_id, outcome=web.client.cancel(session_id, turn_id))


def _accept(
    web: Runtime, caller: Caller, session_id: str, turn: NewTurn, key: str | None
) -> tuple[TurnHandle, Sight]:
    user_id = web.access.enter(caller, session_id, turn.user_id)
    handle = web.client.respond(
        session_id,
        turn.message,
        turn_id=key,
        user_id=user_id,
        channel="web",
        images=turn.images,
        stream=turn.stream,
        overlap=turn.overlap,
        quiet=turn.quiet,
    )
    web.note_accepted(handle, "web")
    (sight,) = web.client.look([Place(session_id, handle.turn_id, after=END)])
    return handle, sight


def _wish(prefer: str | None) -> float:
    found = re.search(r"\bwait=(\d{1,9})", prefer or "")
    return min(float(found[1]), LONGEST_WAIT) if found else 0.0
