"""Views: what the web API shows of turns, sessions and messages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from fastapi import Path
from pydantic import AfterValidator, BaseModel, Field

from inturn.contract import Response
from inturn.errors import InvalidInputError
from inturn.ids import check_id, create_turn_id, session_of_turn
from inturn.session.state import Message, Role, SessionState, Status
from inturn.turns import Sight

TurnStatus = Literal["waiting", "running", "done", "failed", "cancelled", "unknown"]
FinishReason = Literal["interrupted", "failed"]


def decoded(value: str) -> str:
    """A part of a path, as it was before it was percent-encoded."""
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise InvalidInputError("percent-encoded bytes must be UTF-8") from None


def _turn_id(value: str) -> str:
    turn_id = decoded(value)
    return create_turn_id(session_of_turn(turn_id), turn_id)


SessionId = Annotated[
    str,
    AfterValidator(decoded),
    AfterValidator(check_id),
    Path(description="The session's ID, percent-encoded.", examples=["user-123"]),
]
TurnId = Annotated[
    str,
    AfterValidator(_turn_id),
    Path(
        description="A turn's ID, percent-encoded.",
        examples=["user-123:event-1"],
        json_schema_extra={"pattern": "^[^:]+:.+$"},
    ),
]


class Turn(BaseModel):
    """Where a turn stands; `reply` is there once `status` is `done`, `error` once it is `failed`.

    `ahead` counts the turns that are to run before this one, or were when it was accepted. A turn that was
    stopped is `done`, and its reply has the finish reason `interrupted`; one that was dropped before it ran
    is `cancelled`. `unknown`: it never was, or its result is no longer kept.
    """

    session_id: str
    turn_id: str
    status: TurnStatus
    ahead: int | None = None
    reply: Response | None = None
    error: str | None = None


def view_turn(session_id: str, turn_id: str, sight: Sight) -> Turn:
    """A turn as it was seen."""
    turn = Turn(session_id=session_id, turn_id=turn_id, status=sight.view.state)
    if sight.result is None:
        turn.ahead = sight.view.ahead if sight.view.state in ("waiting", "running") else None
    elif sight.result.error is None:
        turn.status, turn.reply = "done", sight.result.response
    else:
        error = sight.result.error
        turn.status = "cancelled" if error.type == "TurnCancelledError" else "failed"
        turn.error = error.message
    return turn


class Session(BaseModel):
    """A session's state. `version` 0: its first turn has not ended yet.

    `waiting` counts the turns that run or wait, `turns` names the first 100 of them, in order.
    """

    session_id: str
    user_id: str | None = None
    status: Status = "active"
    route: str | None = None
    step: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    message_count: int = 0
    waiting: int
    turns: list[str]
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None


def view_session(session_id: str, session: SessionState | None, queue: list[str]) -> Session:
    """A session as it is stored, and the turns in its mailbox."""
    view = Session(session_id=session_id, waiting=len(queue), turns=queue[:100])
    if session is None:
        return view
    return view.model_copy(
        update={
            "user_id": session.user_id,
            "status": session.status,
            "route": session.current_route and session.current_route.id,
            "step": session.current_step and session.current_step.id,
            "data": session.data,
            "message_count": session.message_count,
            "version": session.version,
            "created_at": session.created_at,
            "updated_at": session.updated_at,
            "completed_at": session.completed_at,
        }
    )


class SessionMessage(BaseModel):
    """A line of a session's history.

    `finish_reason` marks the reply of a turn that did not come to its own end. `interrupted`: it was stopped,
    and this, perhaps nothing, is what it had said. `failed`: it was given up; this is the fallback message.
    """

    id: str
    sequence: int
    turn_id: str | None = None
    role: Role
    name: str | None = None
    content: str
    images: list[str] = Field(default_factory=list)
    finish_reason: FinishReason | None = None
    route: str | None = None
    step: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    created_at: datetime


class Messages(BaseModel):
    """A page of a history, and the cursor of the next one (null: there is none)."""

    items: list[SessionMessage]
    cursor: str | None = None


def view_message(message: Message, *, whole: bool) -> SessionMessage | None:
    """A line as it is shown; None for one that is not.

    Signed-in users do not see the `whole`, but what was said to them and by them: calls of tools, their
    outputs and the system's words are between the agent and the model.
    """
    event = message.event or {}
    images = event.get("images") or []
    finish_reason = _finish_reason(message)
    is_said = message.content or images or finish_reason
    if not whole and (message.role not in ("user", "assistant") or not is_said):
        return None
    return SessionMessage(
        id=message.id,
        sequence=message.sequence,
        turn_id=message.turn_id,
        role=message.role,
        name=message.name,
        content=message.content,
        images=images,
        finish_reason=finish_reason,
        route=message.route,
        step=message.step,
        tool_calls=message.tool_calls if whole else None,
        created_at=message.created_at,
    )


def _finish_reason(message: Message) -> FinishReason | None:
    event = message.event or {}
    if message.role != "assistant":
        return None
    if event.get("interrupted"):
        return "interrupted"
    return "failed" if event.get("failed") else None
