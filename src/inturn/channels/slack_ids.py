"""Slack's identifiers, checked before they become part of ours."""

from __future__ import annotations

import re

from inturn.errors import InvalidInputError

_ID = re.compile(r"[A-Za-z0-9]{1,40}")
_TIMESTAMP = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}")
_TRIGGER = re.compile(r"[A-Za-z0-9._-]{1,200}")


def slack_id(value: object, field: str) -> str:
    """Return the ID of a team, a channel or a user; raises `InvalidInputError` for what can be none."""
    return _matched(_ID, value, field)


def slack_timestamp(value: object, field: str) -> str:
    """Return a `ts`, which names a message of a channel; raises `InvalidInputError` for what can be none."""
    return _matched(_TIMESTAMP, value, field)


def slack_trigger(value: object, field: str) -> str:
    """Return a `trigger_id`, which names a command given; raises `InvalidInputError` for what can be none."""
    return _matched(_TRIGGER, value, field)


def _matched(pattern: re.Pattern[str], value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidInputError(f"Slack's {field} must be a string, not {type(value).__name__}")
    if not pattern.fullmatch(value):
        raise InvalidInputError(f"Slack's {field} has not the form {pattern.pattern}")
    return value
