"""Identifiers: what a session ID and a turn ID may be, and how new ones are made."""

from __future__ import annotations

import secrets
import time
import unicodedata
from urllib.parse import quote, unquote

from inturn.errors import InvalidInputError

MAX_ID_LENGTH = 255
"""Characters a session ID, a user ID or a producer's turn ID may have."""


def check_id(value: object, what: str = "session ID") -> str:
    """Return `value` if it may serve as an identifier.

    Rule: a non-empty string of at most 255 characters, without control characters, line separators or
    lone surrogates. Everything else, dictionaries such as `{"$ne": None}` above all, raises
    `InvalidInputError`.
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"a {what} must be a string, not {type(value).__name__}")
    if not value:
        raise InvalidInputError(f"a {what} must not be empty")
    if len(value) > MAX_ID_LENGTH:
        raise InvalidInputError(
            f"a {what} may have at most {MAX_ID_LENGTH} characters, this one has {len(value)}"
        )
    if not (value.isascii() and value.isprintable()):
        for index, char in enumerate(value):
            if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"):
                raise InvalidInputError(
                    f"a {what} must not contain control characters: U+{ord(char):04X} at {index}"
                )
    return value


def create_session_id() -> str:
    """Make a session ID without making a session: sortable by time, with 80 random bits."""
    return f"session_{_time_ordered()}"


def create_message_id() -> str:
    """Make a message ID: sortable by time, so that a B-tree over it grows at its end."""
    return f"msg_{_time_ordered()}"


def create_turn_id(session_id: str, key: str | None = None) -> str:
    """Make the ID of a turn: the session's ID, a colon, and the producer's `key` (else a random one).

    A turn ID is a global name (the Celery task ID, the result's key), so it is scoped by session: two
    sessions that use the same key never meet, and no producer can name another session's turn. Every
    character of the session's ID but letters, digits and `_.-~` is percent-encoded, which makes the first
    colon unambiguous. An ID that this function has made passes through unchanged.
    """
    check_id(session_id)
    scope = quote(session_id, safe="") + ":"
    if key is None:
        return scope + secrets.token_hex(16)
    if isinstance(key, str) and key.startswith(scope):
        check_id(key[len(scope) :], "turn ID")
        return key
    return scope + check_id(key, "turn ID")


def session_of_turn(turn_id: str) -> str:
    """The session that a turn ID made by `create_turn_id` is scoped to.

    Raises `InvalidInputError` for any other, such as the bare UUID of a raw `send_task`.
    """
    scope, colon, key = turn_id.partition(":")
    session_id = unquote(scope, errors="replace")
    if not colon or not key or quote(session_id, safe="") != scope:
        raise InvalidInputError("this turn ID names no session; ask with the session's ID beside it")
    return check_id(session_id)


def _time_ordered() -> str:
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
