"""Sealing: sessions, messages and turns with what people said in them sealed, and the way back.

A sealed session, message or turn is one of the same class, so any store can keep it. All that is sealed of it
stands as one value in a field that is JSON (`{"$enc": "v1:..."}`): a session's `data`, a message's `event`,
a turn's `result`. The other fields are empty. It is bound to the session, to what it is of, and to that one's
ID, and in a message also to its role: in any other row it cannot be opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import ValidationError

from inturn.errors import EncryptionKeyError, StoreError
from inturn.keyring import KeyRing, key_id_of
from inturn.persistence import rows
from inturn.session.state import Message, SessionState, TurnRecord

MARK = "$enc"

READABLE = frozenset(
    {
        "id",
        "user_id",
        "agent_name",
        "status",
        "route_history",
        "current_route",
        "current_step",
        "history_start",
        "message_count",
        "last_message_at",
        "completed_at",
        "created_at",
        "updated_at",
        "version",
        "schema_version",
    }
)
"""The fields of a session that stay as they are. Any other is sealed, also one that is yet to come."""

_SEALED = frozenset(SessionState.model_fields) - READABLE - {"history"}


def seal_session(keys: KeyRing, session: SessionState) -> SessionState:
    """Seal a session; its `history`, which no store keeps, is left out.

    Raises `InvalidInputError` as a store would.
    """
    row = rows.session_row(session)
    plain = f'{{"data":{row["collected_data"]},"state":{row["state"]}}}'
    sealed = keys.seal(plain.encode(), session.id, "session")
    readable = {name: getattr(session, name) for name in READABLE}
    return SessionState.model_construct(**readable, data={MARK: sealed}, **_empty())


def open_session(keys: KeyRing, session: SessionState) -> SessionState:
    """Open a session; one that is not sealed stays as it is. Raises `EncryptionKeyError`."""
    sealed = sealed_in(session)
    if sealed is None:
        return session
    plain = _read(keys, sealed, session.id, "session")
    hidden = {name: plain["state"][name] for name in _SEALED & plain["state"].keys()}
    try:
        return SessionState.model_validate({**session.__dict__, **_empty(), **hidden, "data": plain["data"]})
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)
        )
        raise StoreError(f"what was sealed of session {session.id!r} cannot be read: {faults}") from None


def seal_message(keys: KeyRing, message: Message) -> Message:
    """Seal a message; raises `InvalidInputError` as a store would."""
    row = rows.message_row(message)
    texts = (json.dumps(row[name], ensure_ascii=False) for name in ("content", "name"))
    values = (row[name] or "null" for name in ("tool_calls", "event"))
    plain = '{{"content":{},"name":{},"tool_calls":{},"event":{}}}'.format(*texts, *values)
    sealed = keys.seal(plain.encode(), *_place(message))
    return message.model_copy(
        update={"content": "", "name": None, "tool_calls": None, "event": {MARK: sealed}}
    )


def open_message(keys: KeyRing, message: Message) -> Message:
    """Open a message; one that is not sealed stays as it is. Raises `EncryptionKeyError`."""
    sealed = sealed_in(message)
    if sealed is None:
        return message
    plain = _read(keys, sealed, *_place(message))
    # Nobody without the key can have changed it since it was valid.
    return message.model_copy(update=plain)


def seal_turn(keys: KeyRing, turn: TurnRecord) -> TurnRecord:
    """Seal a turn's record; raises `InvalidInputError` as a store would."""
    row = rows.turn_row(turn)
    sealed = keys.seal(row["result"].encode(), turn.session_id, "turn", row["turn_id"])
    return turn.model_copy(update={"result": {MARK: sealed}})


def open_turn(keys: KeyRing, turn: TurnRecord) -> TurnRecord:
    """Open a turn's record; one that is not sealed stays as it is. Raises `EncryptionKeyError`."""
    sealed = sealed_in(turn)
    if sealed is None:
        return turn
    result = _read(keys, sealed, turn.session_id, "turn", rows.turn_key(turn.turn_id))
    return turn.model_copy(update={"result": result})


def sealed_in(stored: SessionState | Message | TurnRecord) -> str | None:
    """The sealed value of what a store keeps; None: it is not sealed."""
    if isinstance(stored, SessionState):
        field: Mapping[str, Any] | None = stored.data
    else:
        field = stored.event if isinstance(stored, Message) else stored.result
    sealed = field.get(MARK) if field is not None and len(field) == 1 else None
    return sealed if isinstance(sealed, str) else None


def key_id_in(stored: SessionState | Message | TurnRecord) -> str | None:
    """The ID of the key that what a store keeps is sealed with; None: it is not sealed.

    Raises `EncryptionKeyError` for what a later release has sealed.
    """
    sealed = sealed_in(stored)
    key_id = key_id_of(sealed)
    if sealed is not None and key_id is None:
        session_id = stored.id if isinstance(stored, SessionState) else stored.session_id
        raise EncryptionKeyError(None, session_id)
    return key_id


def with_readable_of(session: SessionState, stored: SessionState) -> SessionState:
    """The session, with the readable fields of what a store has made of it."""
    return session.model_copy(update={name: getattr(stored, name) for name in READABLE})


def _place(message: Message) -> tuple[str, ...]:
    return message.session_id, "message", message.id, message.role


def _empty() -> dict[str, Any]:
    return {name: make() for name, make in _EMPTY.items()}


def _maker(name: str) -> Callable[[], Any]:
    field = SessionState.model_fields[name]
    # Not by pydantic's `get_default`, which looks at the factory's signature each time: that costs more than
    # the sealing, and fails now and then where many threads do it at once (in CPython 3.11).
    if field.default_factory is None:
        return lambda: field.default
    return cast(Callable[[], Any], field.default_factory)


_EMPTY = {name: _maker(name) for name in (*_SEALED - {"data"}, "history")}


def _read(keys: KeyRing, sealed: str, *place: str) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(keys.open(sealed, *place))
    except (ValueError, RecursionError):
        raise StoreError(f"what was sealed of session {place[0]!r} cannot be read") from None
    return plain
