"""The indices: their names and mappings, and how sessions, messages and turns are documents in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from inturn.persistence import rows
from inturn.persistence.adapter import SessionQuery
from inturn.persistence.naming import read_names
from inturn.persistence.opensearch.client import Place
from inturn.session.state import Message, SessionState, TurnRecord

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,199}", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9][\w.~%-]{0,99}", re.ASCII)
_PLAIN_NAME = re.compile(r"(?!#).{0,200}", re.DOTALL)
_PLAIN_TURN = re.compile(r"[A-Za-z0-9][\w.~%:-]{0,199}", re.ASCII)

KEYWORD: dict[str, Any] = {"type": "keyword"}
# Dates have milliseconds in OpenSearch, and ours have microseconds: what sorts and compares is the text.
TIME: dict[str, Any] = {"type": "date", "fields": {"exact": KEYWORD}}
_NAMED: dict[str, Any] = {"type": "keyword", "ignore_above": 512}
MAPPINGS: dict[str, dict[str, dict[str, Any]]] = {
    "sessions": {
        "id": KEYWORD,
        "phase": KEYWORD,
        "user_id": KEYWORD,
        "agent_name": _NAMED,
        "agent_key": KEYWORD,
        "status": KEYWORD,
        "current_route": _NAMED,
        "current_step": _NAMED,
        "message_count": {"type": "long"},
        "created_at": TIME,
        "updated_at": TIME,
    },
    "messages": {
        "id": KEYWORD,
        "session_id": KEYWORD,
        "incarnation": KEYWORD,
        "sequence": {"type": "long"},
        "user_id": KEYWORD,
        "role": KEYWORD,
        "content": {"type": "text"},
        "created_at": TIME,
    },
    "turns": {"session_id": KEYWORD, "incarnation": KEYWORD, "turn_id": KEYWORD},
}
"""The fields that are searched, by index. Documents hold more: that is kept, and not looked into."""


@dataclass(frozen=True, slots=True)
class Indices:
    """The names of the indices, and of the documents in them."""

    sessions: str = "agent_sessions"
    messages: str = "agent_messages"
    turns: str = "agent_turns"

    @classmethod
    def named(cls, names: Mapping[str, str] | None) -> Self:
        """Read the option `indices`: names for `sessions`, `messages` and `turns`.

        Names not given are the defaults, or, if `sessions` is given, made from it: `chat` gives
        `chat_messages` and `chat_turns`, so that two sets of indices never share one.

        Raises `ConfigurationError` for a name that OpenSearch does not allow.
        """
        return cls(
            **read_names(
                "indices",
                names,
                _NAME.fullmatch,
                "use small letters, digits and _.-, at most 200, beginning with a letter or a digit",
            )
        )

    def session(self, session_id: str) -> Place:
        """Where a session is."""
        return Place(self.sessions, _key(session_id, _PLAIN))

    def message(self, session_id: str, sequence: int) -> Place:
        """Where the message of a session with this sequence is."""
        return Place(self.messages, f"{_key(session_id, _PLAIN)}:{sequence}")

    def turn(self, session_id: str, turn_key: str) -> Place:
        """Where the record of a turn is."""
        return Place(self.turns, f"turn:{_key(session_id, _PLAIN)}:{_key(turn_key, _PLAIN_TURN)}")

    def message_id(self, message_id: str) -> Place:
        """Where it is written down who has this message ID."""
        return Place(self.turns, f"message:{_key(message_id, _PLAIN)}")


def session_source(
    session: SessionState, turn: TurnRecord | None, *, incarnation: str, attempt: str
) -> dict[str, Any]:
    """The document of a session, which carries the record of the turn that was committed with it."""
    row = _jsonable(rows.session_row(session))
    return {
        **row,
        "phase": "live",
        "agent_key": agent_key(session.agent_name),
        "incarnation": incarnation,
        "attempt": attempt,
        "last_turn": None
        if turn is None
        else turn_source(_jsonable(rows.turn_row(turn)), row["version"], incarnation, attempt),
    }


def turn_source(row: Mapping[str, Any], version: int, incarnation: str, attempt: str) -> dict[str, Any]:
    """The document of a turn that was committed as `version`."""
    return {**row, "version": version, "incarnation": incarnation, "attempt": attempt}


def message_source(message: Message, incarnation: str, attempt: str) -> dict[str, Any]:
    """The document of a message."""
    return {**_jsonable(rows.message_row(message)), "incarnation": incarnation, "attempt": attempt}


def session_from(source: Mapping[str, Any]) -> SessionState:
    """The session of a document."""
    return rows.session_from_row(_columns(source, rows.SESSION_COLUMNS))


def listed_session(source: Mapping[str, Any], query: SessionQuery) -> SessionState:
    """The session of a document, in a list."""
    return rows.listed_session(_columns(source, rows.SESSION_COLUMNS), query)


def message_from(source: Mapping[str, Any]) -> Message:
    """The message of a document."""
    return rows.message_from_row(_columns(source, rows.MESSAGE_COLUMNS))


def turn_from(source: Mapping[str, Any], turn_id: str) -> TurnRecord:
    """The turn of a document."""
    return rows.turn_from_row(_columns(source, rows.TURN_COLUMNS), turn_id)


def exact_time(time: datetime) -> str:
    """A time as it is written: in UTC and of one length, so that texts compare as the times do."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def agent_key(name: str | None) -> str | None:
    """What an agent is found by: its name may be longer than an index can hold."""
    return None if name is None else _key(name, _PLAIN_NAME)


def _key(text: str, plain: re.Pattern[str]) -> str:
    # An ID in OpenSearch has at most 512 bytes; no plain text begins with the sign of a hashed one.
    return text if plain.fullmatch(text) else f"#{hashlib.sha256(text.encode()).hexdigest()}"


def _columns(source: Mapping[str, Any], names: tuple[str, ...]) -> rows.Row:
    return {name: source.get(name) for name in names}


def _jsonable(row: rows.Row) -> rows.Row:
    return {name: exact_time(value) if isinstance(value, datetime) else value for name, value in row.items()}
