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
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from inturn.errors import InvalidInputError, SessionConflictError, StoreError
from inturn.ids import check_id
from inturn.persistence.adapter import MAX_PAGE, MessageQuery, Page, SessionQuery, Target
from inturn.session.state import Message, SessionState, TurnRecord, UnreadableSession, build, utcnow
from inturn.values import to_json, to_text

Row = dict[str, Any]
M = TypeVar("M", bound=BaseModel)

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
REWRITTEN_OF_A_SESSION = ("collected_data", "state")
REWRITTEN_OF_A_MESSAGE = ("content", "name", "tool_calls", "event")
"""The columns that `PersistenceAdapter.rewrite` changes, and of a turn its result."""


def session_row(session: SessionState) -> Row:
    """Encode a session as it stands; JSON columns as text, times as aware datetimes."""
    _refuse_unreadable(session)
    route, step = session.current_route, session.current_step
    rest = {
        "data_by_route": session.data_by_route,
        "route_history": [entry.model_dump(mode="json") for entry in session.route_history],
        "current_route": route and route.model_dump(mode="json"),
        "current_step": step and step.model_dump(mode="json"),
        "pending": session.pending,
        "journal": session.journal,
        "summary": session.summary and session.summary.model_dump(mode="json"),
        "outbox": {turn_id: each.model_dump(mode="json") for turn_id, each in session.outbox.items()},
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
        "state": to_json({key: value for key, value in rest.items() if value or key == "pending"}, "state"),
        "message_count": _to_int64(session.message_count, "message_count"),
        "last_message_at": session.last_message_at,
        "completed_at": session.completed_at,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "version": _to_int64(session.version, "version"),
        "schema_version": (
            None if session.schema_version is None else _to_int64(session.schema_version, "schema_version")
        ),
    }


def session_from_row(row: Mapping[str, Any]) -> SessionState:
    """Decode a session; JSON columns may be text or already decoded, times text or datetimes.

    Raises `StoreError`, as the other two `..._from_row`, if somebody else's hand left what cannot be read.
    """
    state = _decoded(row["state"]) or {}
    fields = {
        **state,
        **{key: row[key] for key in SESSION_COLUMNS if key not in _ENCODED_COLUMNS},
        "data": _decoded(row["collected_data"]) or {},
    }
    return _stored(SessionState, fields, row["id"])


def listed_session(row: Mapping[str, Any], query: SessionQuery) -> SessionState:
    """Decode a session of a list; what cannot be read is told as the query asks for it."""
    try:
        return session_from_row(row)
    except StoreError as error:
        if not query.unreadable:
            raise
        told = {name: row[name] for name in SESSION_COLUMNS if name not in _ENCODED_COLUMNS}
        return _stored(UnreadableSession, {**told, "reason": str(error)}, row["id"])


_ENCODED_COLUMNS = frozenset({"collected_data", "state", "current_route", "current_step"})


def message_row(message: Message) -> Row:
    """Encode a message as it stands."""
    return {
        "id": check_id(message.id, "message ID"),
        "session_id": check_id(message.session_id),
        "sequence": message.sequence,
        "turn_id": message.turn_id and to_text(message.turn_id, "turn_id"),
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
    return _stored(Message, _message_fields(row), row["session_id"])


def _message_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "tool_calls": _decoded(row["tool_calls"]), "event": _decoded(row["event"])}


def messages_from_json(text: str) -> list[Message]:
    """Decode messages that come as one JSON array of rows, their JSON columns decoded."""
    try:
        return _MESSAGES.validate_json(text)
    except ValidationError:
        # One by one, to say which cannot be read; or it is but nested more deeply than pydantic reads.
        return [message_from_row(row) for row in json.loads(text)]


def messages_from_rows(found: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Decode messages, all in one go."""
    try:
        return _MESSAGES.validate_python([_message_fields(row) for row in found])
    except ValidationError:
        return [message_from_row(row) for row in found]  # one by one, to say which cannot be read


_MESSAGES = TypeAdapter(list[Message])


def turn_row(turn: TurnRecord) -> Row:
    """Encode a turn's record; the column `turn_id` is its `turn_key`."""
    turn = build(TurnRecord, turn.__dict__)
    return {
        "session_id": check_id(turn.session_id),
        "turn_id": turn_key(turn.turn_id),
        "result": to_json(turn.result, "result"),
        "created_at": turn.created_at,
    }


def turn_from_row(row: Mapping[str, Any], turn_id: str) -> TurnRecord:
    """Decode the record of the turn `turn_id`."""
    fields = {**row, "turn_id": turn_id, "result": _decoded(row["result"])}
    return _stored(TurnRecord, fields, row["session_id"])


def turn_key(turn_id: str) -> str:
    """What a turn is found by in a store: its ID, or the hash of one of more than 512 bytes.

    Turn IDs hold the session's ID percent-encoded and can have kilobytes, more than an index entry may have
    (2,704 bytes in PostgreSQL).
    """
    if not isinstance(turn_id, str) or not turn_id:
        raise InvalidInputError("a turn ID must be a string, and not empty")
    encoded = to_text(turn_id, "turn_id").encode()
    return turn_id if len(encoded) <= 512 else f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def turn_keys(session_id: str, turn_ids: Sequence[str]) -> dict[str, str]:
    """These turns by what they are found by; `InvalidInputError` for what no backend should be asked."""
    check_id(session_id)
    return {turn_key(turn_id): turn_id for turn_id in turn_ids}


def next_commit(
    session: SessionState, messages: Sequence[Message], expected_version: int, turn: TurnRecord | None = None
) -> tuple[SessionState, list[Message]]:
    """Apply the arithmetic of a commit to copies: version, sequences, counts and times.

    Both are validated once more: fields may have been assigned since, and a row that cannot be read back
    must not be written. Raises `InvalidInputError`.
    """
    _to_count(expected_version, "expected_version")
    if expected_version == 0 and session.message_count:
        raise InvalidInputError("a new session has no messages yet: its message_count must be 0")
    for message in messages:
        if message.session_id != session.id:
            raise InvalidInputError(f"a message of session {message.session_id!r} in one of {session.id!r}")
    if turn is not None and turn.session_id != session.id:
        raise InvalidInputError(f"a turn of session {turn.session_id!r} in one of {session.id!r}")
    # Before pydantic, which would take bytes for a text.
    check_id(session.id)
    for user_id in (session.user_id, *(message.user_id for message in messages)):
        if user_id is not None:
            check_id(user_id, "user ID")
    _refuse_unreadable(session)
    # The history is not written: its lines have rows of their own.
    history = session.history
    session = build(SessionState, {**session.__dict__, "history": []})
    first = session.message_count + 1
    numbered = [
        build(Message, {**message.__dict__, "sequence": sequence})
        for sequence, message in enumerate(messages, first)
    ]
    update: dict[str, Any] = {
        "history": history,
        "version": expected_version + 1,
        "updated_at": max(utcnow(), session.updated_at),
        "message_count": session.message_count + len(numbered),
    }
    if numbered:
        update["last_message_at"] = numbered[-1].created_at
    return session.model_copy(update=update), numbered


def check_current(session: SessionState, expected_version: int, stored: Mapping[str, Any] | None) -> None:
    """Return if a session may be saved over the row that is stored (None: there is none).

    Raises `SessionConflictError` for another version than expected, `InvalidInputError` for a session whose
    `message_count` somebody has set: its messages would get sequences that are taken.
    """
    version = None if stored is None else stored["version"]
    if (version or 0) != expected_version:
        raise SessionConflictError(session.id, expected_version, version)
    if stored is not None and stored["message_count"] != session.message_count:
        raise InvalidInputError(
            f"message_count is {session.message_count}, but {stored['message_count']} messages are stored; "
            "only the store changes it"
        )


def taken_message_id() -> InvalidInputError:
    """The error for a message whose ID is not new."""
    return InvalidInputError("a message has the ID of one that is stored already; message IDs are unique")


def check_load(session_id: str, last_messages: int, turn_id: str | None) -> None:
    """Raise `InvalidInputError` for what no backend should be asked."""
    check_id(session_id)
    _to_count(last_messages, "last_messages")
    if turn_id is not None:
        turn_key(turn_id)


def check_turns_query(session_id: str, limit: int) -> None:
    """Raise `InvalidInputError` for what no backend should be asked."""
    check_id(session_id)
    _check_limit(limit)


def rewritten_rows(
    session: SessionState | None, messages: Sequence[Message], turns: Sequence[TurnRecord]
) -> tuple[Row | None, list[Row], list[Row]]:
    """The rows of `PersistenceAdapter.rewrite`; raises `InvalidInputError` if they are not of one session."""
    ids = {message.session_id for message in messages} | {turn.session_id for turn in turns}
    ids |= set() if session is None else {session.id}
    if len(ids) > 1:
        raise InvalidInputError("what is rewritten in one call must be of one session")
    return (
        None if session is None else session_row(session),
        [message_row(message) for message in messages],
        [turn_row(turn) for turn in turns],
    )


def check_targets(targets: Sequence[Target]) -> None:
    """Raise `InvalidInputError` for what no backend should be asked to delete."""
    for target in targets:
        check_id(target.session_id)
        if target.version is not None:
            _to_count(target.version, "version")


def check_session_query(query: SessionQuery) -> None:
    """Raise `InvalidInputError` for a query no backend should see."""
    _check_limit(query.limit)
    if query.user_id is not None:
        check_id(query.user_id, "user ID")
    if query.agent_name is not None:
        if not isinstance(query.agent_name, str):
            raise InvalidInputError(f"an agent name must be a string, not {type(query.agent_name).__name__}")
        to_text(query.agent_name, "agent_name")
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
    for name in ("after", "before"):
        if (sequence := getattr(query, name)) is not None:
            _to_int64(sequence, name)
    if query.order not in ("newest", "oldest"):
        raise InvalidInputError(f"no such order: {query.order!r}; use newest or oldest")


def turns_after(cursor: str | None) -> str:
    """The turn's key after which a page of turns begins."""
    return "" if cursor is None else str(decode_cursor(cursor, _TURNS, str)[0])


def page_of_turns(found: Sequence[Mapping[str, Any]], limit: int) -> Page[TurnRecord]:
    """Make a page of rows in the order of their keys; one more than `limit` tells that there are more."""
    items = [turn_from_row(row, row["turn_id"]) for row in found[:limit]]
    return Page(items, encode_cursor(_TURNS, items[-1].turn_id) if len(found) > limit else None)


_TURNS = "turns of a session"


def encode_cursor(kind: str, *parts: Any) -> str:
    """Make an opaque cursor of a sort key; `kind` tells the query it belongs to from others."""
    text = json.dumps([kind, *(part.isoformat() if isinstance(part, datetime) else part for part in parts)])
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode_cursor(cursor: str, kind: str, *types: type) -> list[Any]:
    """Read a cursor of this kind back as values of `types`; anything else is an `InvalidInputError`."""
    try:
        made_for, *parts = json.loads(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True))
        if made_for != kind:
            raise ValueError
        return [_cursor_part(part, type_) for part, type_ in zip(parts, types, strict=True)]
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise InvalidInputError("this cursor was not made by this query; start without one") from None


def _cursor_part(part: Any, kind: type) -> Any:
    if kind is datetime:
        return datetime.fromisoformat(part).astimezone(UTC)
    if type(part) is not kind:
        raise ValueError
    return to_text(part, "cursor") if isinstance(part, str) else _to_int64(part, "cursor")


def _check_limit(limit: object) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_PAGE:
        raise InvalidInputError(f"limit must be from 1 to {MAX_PAGE}, not {limit!r}")


def _check_time(value: object, name: str) -> None:
    if value is None:
        return
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidInputError(f"{name} must be a datetime with a time zone, such as {datetime.now(UTC)}")


def _to_count(value: object, name: str) -> int:
    count = _to_int64(value, name)
    if count < 0:
        raise InvalidInputError(f"{name} must be 0 or more")
    return count


def _to_int64(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise InvalidInputError(f"{name} must be an integer of at most 64 bits")
    return value


def _refuse_unreadable(session: SessionState) -> None:
    if isinstance(session, UnreadableSession):
        raise InvalidInputError(f"session {session.id!r} could not be read, so it is not written over")


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str | bytes) else value
    except (ValueError, RecursionError):
        raise StoreError("a stored JSON value cannot be read") from None


def _stored(model: type[M], fields: Mapping[str, Any], session_id: str) -> M:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise StoreError(
            f"a stored {model.__name__} of session {session_id!r} cannot be read: {faults}"
        ) from None
