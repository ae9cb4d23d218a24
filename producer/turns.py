"""Turns over HTTP: enqueue one, and ask what became of it."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response, status
from pydantic import BaseModel, ConfigDict

from inturn.client import Client, TurnHandle
from inturn.contract import Response as Reply
from inturn.errors import TurnCancelledError, TurnError, TurnTimeoutError
from inturn.ids import session_of_turn

router = APIRouter()

LONGEST_WAIT = 30.0
"""Seconds a request with `Prefer: wait=n` may wait; a longer wish is cut to this."""


class NewTurn(BaseModel):
    """A user's message."""

    model_config = ConfigDict(extra="forbid")

    message: str
    user_id: str | None = None


class Turn(BaseModel):
    """Where a turn stands; `reply` is there once `status` is `done`, `error` once it is `failed`.

    `ahead` counts the turns that were to run first when this one was accepted.
    """

    session_id: str
    turn_id: str
    status: str
    ahead: int | None = None
    reply: Reply | None = None
    error: str | None = None


@router.post("/sessions/{session_id}/turns", status_code=status.HTTP_202_ACCEPTED)
def enqueue(
    session_id: str,
    turn: NewTurn,
    request: Request,
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
    prefer: Annotated[str | None, Header()] = None,
) -> Turn:
    """Accept a message: 202 once it is safely in its session's mailbox.

    The same `Idempotency-Key` again adds nothing. `Prefer: wait=10` waits up to that many seconds and
    answers 200 with the reply if it came in time.
    """
    client: Client = request.app.state.client
    handle = client.respond(
        session_id, turn.message, turn_id=idempotency_key, user_id=turn.user_id, channel="web"
    )
    wish = re.search(r"\bwait=(\d+)", prefer or "")
    view = _view(handle, min(float(wish[1]), LONGEST_WAIT) if wish else 0.0)
    view.ahead = handle.ahead
    if view.reply is not None or view.error is not None:
        response.status_code = status.HTTP_200_OK
    return view


@router.get("/turns/{turn_id:path}")
def look(turn_id: str, request: Request) -> Turn:
    """Tell where a turn stands, with its reply if it is done."""
    client: Client = request.app.state.client
    return _view(client.handle(session_of_turn(turn_id), turn_id), 0.0)


def _view(handle: TurnHandle, wait: float) -> Turn:
    view = Turn(session_id=handle.session_id, turn_id=handle.turn_id, status="done")
    try:
        view.reply = handle.get(timeout=wait)
    except TurnTimeoutError:
        view.status = handle.status()
    except TurnError as error:
        view.status = "cancelled" if isinstance(error, TurnCancelledError) else "failed"
        view.error = str(error)
    return view
