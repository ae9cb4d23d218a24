"""Sessions, messages and turns as rows: the columns that all backends share, and what may stand in them.

The tables are the seed's (`agent_sessions`, `agent_messages`) with `version`, `schema_version`, `state`
(what of a session has no column of its own), `sequence`, `turn_id` and `name` beside them, and a third,
`agent_turns`. Every value goes through here on its way to a backend, so every backend refuses the same
input: PostgreSQL cannot hold NUL, UTF-8 cannot hold a lone surrogate, JSON cannot hold NaN, and a text
that only some stores keep is a text lost later.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from inturn.errors import InvalidInputError
from inturn.ids import check_id
from inturn.persistence.adapter import MAX_PAGE, MessageQuery, SessionQuery
from inturn.session.state import Message, SessionState, TurnRecord, build, utcnow
from inturn.values import to_json, to_text

Row = dict[str, Any]

SESSION_COLUMNS = (
    "id",
    "user_id",
    "agent_name",
    "status",
    "current_route",
    "current_step",
    "collected_data",
    "state",
    "message_count",
    "last_message_at",
    "completed_at",
    "created_at",
    "updated_at",
    "version",
    "schema_version",
)
MESSAGE_COLUMNS = (
    "id",
    "session_id",
    "sequence",
    "turn_id",
    "user_id",
    "role",
    "content",
    "name",
    "route",
    "step",
    "tool_calls",
    "event",
    "created_at",
)
TURN_COLUMNS = ("session_id", "turn_id", "result", "created_at")


def session_row(session: SessionState) -> Row:
    """Encode a session as it stands; JSON columns as text, times as aware datetimes."""
    route, step = session.current_route, session.current_step
    rest = {
        "data_by_route": session.data_by_route,
        "route_history": [entry.model_dump(mode="json") for entry in session.route_history],
        "current_route": route and route.model_dump(mode="json"),
        "current_step": step and step.model_dump(mode="json"),
        "pending": session.pending,
        "history_start": session.history_start,
        "metadata": session.metadata,
    }
    return {
        "id": check_id(session.id),
        "user_id": None if session.user_id is None else check_id(session.user_id, "user ID"),
        "agent_name": session.agent_name and to_text(session.agent_name, "agent_name"),
        "status": session.status,
        "current_route": route and to_text(route.id, "current_route"),
        "current_step": step and to_text(step.id, "current_step"),
        "collected_data": to_json(session.data, "data"),
        "state": to_json({key: value for key, value in rest.items() if value}, "state"),
        "message_count": session.message_count,
        "last_message_at": session.last_message_at,
        "completed_at": session.completed_at,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "version": session.version,
        "schema_version": session.schema_version,
    }


def session_from_row(row: Mapping[str, Any]) -> SessionState:
    """Decode a session; JSON columns may be text or already decoded, times text or datetimes."""
    state = _decoded(row["state"]) or {}
    return SessionState.model_validate(
        {
            **state,
            **{key: row[key] for key in SESSION_COLUMNS if key not in _ENCODED_COLUMNS},
            "data": _decoded(row["collected_data"]) or {},
        }
    )


_ENCODED_COLUMNS = frozenset({"collected_data", "state", "current_route", "current_step"})


def message_row(message: Message) -> Row:
    """Encode a message as it stands."""
    return {
        "id": check_id(message.id, "message ID"),
        "session_id": check_id(message.session_id),
        "sequence": message.sequence,
        "turn_id": message.turn_id,
        "user_id": None if message.user_id is None else check_id(message.user_id, "user ID"),
        "role": message.role,
        "content": to_text(message.content, "content"),
        "name": message.name and to_text(message.name, "name"),
        "route": message.route and to_text(message.route, "route"),
        "step": message.step and to_text(message.step, "step"),
        "tool_calls": None if message.tool_calls is None else to_json(message.tool_calls, "tool_calls"),
        "event": None if message.event is None else to_json(message.event, "event"),
        "created_at": message.created_at,
    }


def message_from_row(row: Mapping[str, Any]) -> Message:
    """Decode a message."""
    return Message.model_validate(
        {**row, "tool_calls": _decoded(row["tool_calls"]), "event": _decoded(row["event"])}
    )


def turn_row(turn: TurnRecord) -> Row:
    """Encode a turn's record."""
    return {
        "session_id": check_id(turn.session_id),
        "turn_id": to_text(turn.turn_id, "turn_id"),
        "result": to_json(turn.result, "result"),
        "created_at": turn.created_at,
    }


def turn_from_row(row: Mapping[str, Any]) -> TurnRecord:
    """Decode a turn's record."""
    return TurnRecord.model_validate({**row, "result": _decoded(row["result"])})


def next_commit(
    session: SessionState, messages: Sequence[Message], expected_version: int, turn: TurnRecord | None = None
) -> tuple[SessionState, list[Message]]:
    """Apply the arithmetic of a commit to copies: version, sequences, counts and times.

    Both are validated once more: fields may have been assigned since, and a row that cannot be read back
    must not be written. Raises `InvalidInputError`.
    """
    for message in messages:
        if message.session_id != session.id:
            raise InvalidInputError(f"a message of session {message.session_id!r} in one of {session.id!r}")
    if turn is not None and turn.session_id != session.id:
        raise InvalidInputError(f"a turn of session {turn.session_id!r} in one of {session.id!r}")
    session = build(SessionState, session.__dict__)
    first = session.message_count + 1
    numbered = [
        build(Message, {**message.__dict__, "sequence": sequence})
        for sequence, message in enumerate(messages, first)
    ]
    update: dict[str, Any] = {
        "version": expected_version + 1,
        "updated_at": max(utcnow(), session.updated_at),
        "message_count": session.message_count + len(numbered),
    }
    if numbered:
        update["last_message_at"] = numbered[-1].created_at
    return session.model_copy(update=update), numbered


def check_session_query(query: SessionQuery) -> None:
    """Raise `InvalidInputError` for a query no backend should see."""
    _check_limit(query.limit)
    if query.user_id is not None:
        check_id(query.user_id, "user ID")
    if query.agent_name is not None and not isinstance(query.agent_name, str):
        raise InvalidInputError(f"an agent name must be a string, not {type(query.agent_name).__name__}")
    if query.status is not None and query.status not in ("active", "completed", "abandoned"):
        raise InvalidInputError(f"no such status: {query.status!r}; use active, completed or abandoned")
    if query.order not in ("newest", "oldest"):
        raise InvalidInputError(f"no such order: {query.order!r}; use newest or oldest")
    for name in ("older_than", "newer_than"):
        _check_time(getattr(query, name), name)


def check_message_query(query: MessageQuery) -> None:
    """Raise `InvalidInputError` for a query no backend should see."""
    _check_limit(query.limit)
    if (query.session_id is None) == (query.user_id is None):
        raise InvalidInputError("a message query takes either a session_id or a user_id")
    if query.session_id is not None:
        check_id(query.session_id)
    if query.user_id is not None:
        check_id(query.user_id, "user ID")
        if query.after is not None or query.before is not None:
            raise InvalidInputError("after and before are sequences of one session; give a session_id")
    if query.order not in ("newest", "oldest"):
        raise InvalidInputError(f"no such order: {query.order!r}; use newest or oldest")


def encode_cursor(*parts: Any) -> str:
    """Make an opaque cursor of a sort key."""
    text = json.dumps([part.isoformat() if isinstance(part, datetime) else part for part in parts])
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode_cursor(cursor: str, *types: type) -> list[Any]:
    """Read a cursor back as values of `types`; anything else is an `InvalidInputError`."""
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        if not isinstance(parts, list) or len(parts) != len(types):
            raise ValueError
        values = [
            datetime.fromisoformat(part) if kind is datetime else part
            for part, kind in zip(parts, types, strict=True)
        ]
        if not all(isinstance(value, kind) for value, kind in zip(values, types, strict=True)):
            raise ValueError
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise InvalidInputError("this cursor was not made by this query; start without one") from None
    return values


def _check_limit(limit: object) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_PAGE:
        raise InvalidInputError(f"limit must be from 1 to {MAX_PAGE}, not {limit!r}")


def _check_time(value: object, name: str) -> None:
    if value is None:
        return
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidInputError(f"{name} must be a datetime with a time zone, such as {datetime.now(UTC)}")


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str | bytes) else value
