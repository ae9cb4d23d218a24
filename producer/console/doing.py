"""Doing: the page on which an act is confirmed, and the form by which it is done."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Depends, Form, Path, Query, Request, Response

from inturn.errors import InvalidInputError
from inturn.ids import check_id

from ..problems import Refusal, not_found
from ..runtime import Web
from .acts import ACTS, Act, Subject
from .door import Acts, Signed
from .pages import PREFIX, ConsoleRoute, answer, base_of, encoded, go_to

router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=ConsoleRoute)
log = structlog.get_logger(__name__)

LONGEST_TURN_ID = 1200
"""Characters of a turn's ID: that of its session, percent-encoded, and the producer's."""

Back = Literal["session", "dead-letters", "deliveries"]
"""Where one comes from, and goes back to."""


def _act(name: Annotated[str, Path(max_length=40)]) -> Act:
    if name not in ACTS:
        raise not_found("page")
    return ACTS[name]


def _subject(
    request: Request,
    act: Annotated[Act, Depends(_act)],
    session: Annotated[str, Query(max_length=300)] = "",
    turn: Annotated[str, Query(max_length=LONGEST_TURN_ID)] = "",
    user: Annotated[str, Query(max_length=300)] = "",
) -> Subject:
    if act.of == "user":
        return Subject(request, user_id=check_id(user, "user ID"))
    if act.of == "turn" and not turn:
        raise InvalidInputError("this address names no turn")
    return Subject(request, check_id(session), turn if act.of == "turn" else "")


Chosen = Annotated[Act, Depends(_act)]
On = Annotated[Subject, Depends(_subject)]


@router.get("/act/{name}")
def confirm(
    request: Request, name: str, act: Chosen, subject: On, _: Signed, back: Back = "session"
) -> Response:
    """What is about to be done, and the button that does it."""
    return answer(
        request,
        "confirm.html",
        act=act,
        name=name,
        subject=subject,
        back=back,
        back_address=_back(request, subject, back),
        nonce=secrets.token_hex(8),
        wrong=False,
    )


@router.post("/act/{name}")
def do(
    request: Request,
    name: str,
    act: Chosen,
    subject: On,
    web: Web,
    caller: Acts,
    back: Back = "session",
    nonce: Annotated[str, Form(pattern="^[0-9a-f]{16}$")] = "",
    typed: Annotated[str, Form(max_length=300)] = "",
) -> Response:
    """Do it, once the audit log has that it is about to be done."""
    if not nonce:
        raise Refusal(422, "invalid-input", "the form is not whole; load its page anew")
    subject = Subject(request, subject.session_id, subject.turn_id, subject.user_id, nonce)
    if act.is_typed and typed != subject.user_id:
        return answer(
            request,
            "confirm.html",
            422,
            act=act,
            name=name,
            subject=subject,
            back=back,
            back_address=_back(request, subject, back),
            nonce=nonce,
            wrong=True,
        )
    if act.is_noted:
        turn_id = subject.turn_id or None
        web.desk.note("change", f"console_{name}", [subject.session_id], turn_id=turn_id)
    came = act.do(web, caller, subject)
    log.info(
        "console", act=name, operator=caller.name, session_id=subject.session_id, turn_id=subject.turn_id
    )
    if isinstance(came, Response):
        return came
    address = f"{base_of(request)}/sessions" if came == "erased" else _back(request, subject, back)
    return go_to(address, note=came)


def _back(request: Request, subject: Subject, back: Back) -> str:
    base = base_of(request)
    if subject.user_id:
        return f"{base}/sessions"
    return f"{base}/sessions/{encoded(subject.session_id)}" if back == "session" else f"{base}/{back}"
