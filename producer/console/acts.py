"""Acts: what an operator can do; `doing` says how each is shown first, and done with a second step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from inturn.contract import DeadLetter
from inturn.session.state import Status

from .. import sessions, users
from ..auth import Caller
from ..runtime import Runtime
from .exporting import export_session
from .pages import answer


@dataclass(frozen=True, slots=True)
class Subject:
    """What is acted on, as the request says it. `nonce` is one form's own: sent twice it is one act."""

    request: Request
    session_id: str = ""
    turn_id: str = ""
    user_id: str = ""
    nonce: str = ""


Doing = Callable[[Runtime, Caller, Subject], Response | str]
"""Does it; gives what came of it, as a word of `OUTCOMES`, or an answer of its own."""


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that can be done: what it is called, what it means, and what it is done to.

    `is_final`: it cannot be undone. `is_typed`: the ID must be typed by whoever wants it. `is_noted`: the
    audit log does not have it by itself, for it goes past the store.
    """

    title: str
    words: str
    button: str
    do: Doing
    of: Literal["session", "turn", "user"] = "session"
    is_final: bool = False
    is_typed: bool = False
    is_noted: bool = False


OUTCOMES = {
    "dropped": "The turn was dropped before it ran.",
    "signalled": "The turn was asked to stop: it ends with what it has said until then.",
    "unknown": "There was nothing to stop: the turn has ended, or never was.",
    "retried": "The turn runs again, behind those of its session that wait.",
    "gone": "There is no such dead letter any more: somebody else was faster, or it has expired.",
    "letter-dropped": "The dead letter is gone. What the session's history says of the turn stays.",
    "redelivered": "Another try was asked for: it goes out behind those of its session that wait.",
    "asked": "It was asked for, and happens as a turn of its own, behind those that wait.",
    "erased": "The session was erased.",
}
"""What came of an act, in words; the address of the next page names one of them, and no text of its own."""


def _stop(web: Runtime, _: Caller, subject: Subject) -> str:
    return web.client.cancel(subject.session_id, subject.turn_id)


def _retry(web: Runtime, _: Caller, subject: Subject) -> str:
    letter = _letter(web, subject)
    return "retried" if letter is not None and web.client.dead.retry(letter) is not None else "gone"


def _drop(web: Runtime, _: Caller, subject: Subject) -> str:
    letter = _letter(web, subject)
    return "letter-dropped" if letter is not None and web.client.dead.drop(letter) else "gone"


def _letter(web: Runtime, subject: Subject) -> DeadLetter | None:
    return web.client.dead.get(subject.turn_id, subject.session_id)


def _redeliver(web: Runtime, _: Caller, subject: Subject) -> str:
    web.client.retry_delivery(subject.session_id, subject.turn_id)
    return "redelivered"


def _become(status: Status) -> Doing:
    def do(web: Runtime, caller: Caller, subject: Subject) -> str:
        web.access.read(caller, subject.session_id)  # to save what is not there would make it
        web.client.save_session(subject.session_id, status=status, turn_id=f"console-{subject.nonce}")
        return "asked"

    return do


def _erase(web: Runtime, caller: Caller, subject: Subject) -> str:
    sessions.delete(subject.session_id, web, caller)
    return "erased"


def _erase_user(web: Runtime, caller: Caller, subject: Subject) -> Response:
    report = users.erase(subject.user_id, web, caller)
    counts = report.model_dump(exclude={"user_id", "dry_run", "elsewhere", "finished"})
    return answer(subject.request, "erased.html", report=report, counts=counts)


def _export(web: Runtime, _: Caller, subject: Subject) -> Response:
    lines = export_session(web, subject.session_id)
    first = next(lines)  # what is wrong before anything was read is a page
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", subject.session_id).strip("-")[:80] or "session"

    def all_lines() -> Iterator[bytes]:
        yield first
        yield from lines

    headers = {"Content-Disposition": f'attachment; filename="{name}.jsonl"'}
    return StreamingResponse(all_lines(), media_type="application/x-ndjson", headers=headers)


def _export_user(web: Runtime, caller: Caller, subject: Subject) -> Response:
    return users.export(subject.user_id, web, caller)


ACTS: dict[str, Act] = {
    "stop": Act(
        "Stop this turn?",
        "If it waits, it is dropped and never runs. If it runs, it ends with its next piece of text, and "
        "what it has said until then is its reply. The session goes on with its next turn.",
        "Stop the turn",
        _stop,
        of="turn",
        is_noted=True,
    ),
    "retry": Act(
        "Run this turn again?",
        "It runs as a new turn, behind those of its session that wait, and the dead letter goes.",
        "Run it again",
        _retry,
        of="turn",
        is_noted=True,
    ),
    "drop": Act(
        "Drop this dead letter?",
        "The turn can no longer be run again. What the session's history says of it stays.",
        "Drop it",
        _drop,
        of="turn",
        is_final=True,
        is_noted=True,
    ),
    "redeliver": Act(
        "Try this delivery again?",
        "It goes on with the part that it ended with, which may arrive twice if the platform had taken it.",
        "Try again",
        _redeliver,
        of="turn",
        is_noted=True,
    ),
    "complete": Act(
        "Complete this session?",
        "Its status becomes completed, as a turn of its own, behind those that wait. Retention deletes it "
        "once it is old enough.",
        "Complete the session",
        _become("completed"),
        is_noted=True,
    ),
    "abandon": Act(
        "Abandon this session?",
        "Its status becomes abandoned, as a turn of its own, behind those that wait. Retention deletes it "
        "once it is old enough.",
        "Abandon the session",
        _become("abandoned"),
        is_noted=True,
    ),
    "reopen": Act(
        "Make this session active again?",
        "Its status becomes active, as a turn of its own, behind those that wait.",
        "Make it active",
        _become("active"),
        is_noted=True,
    ),
    "export": Act(
        "Export this session?",
        "You get all there is of it as JSON lines: its state, what was said, turns that wait and dead "
        "letters. The audit log has it.",
        "Download",
        _export,
    ),
    "erase": Act(
        "Erase this session?",
        "It goes with all that was said in it, for good. Nothing happens while a turn of it runs or waits, "
        "or a reply is on its way out: stop them first.",
        "Erase the session",
        _erase,
        is_final=True,
    ),
    "export-user": Act(
        "Export all there is of this user?",
        "You get it as JSON lines: their sessions with what was said, what they have said in those of "
        "others, turns that wait and dead letters. The audit log has it.",
        "Download",
        _export_user,
        of="user",
    ),
    "erase-user": Act(
        "Erase all there is of this user?",
        "Their sessions go, and whatever waits, runs, failed or was told of them, for good. What they have "
        "said in sessions of others is blanked. This takes some seconds; a turn that runs is given ten more.",
        "Erase the user",
        _erase_user,
        of="user",
        is_final=True,
        is_typed=True,
    ),
}
