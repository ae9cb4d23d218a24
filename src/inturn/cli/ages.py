"""Ages: how long ago something was, in the words of people."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from inturn.errors import InvalidInputError

_SIZES = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


def ago(now: datetime, since: datetime) -> str:
    """How long ago `since` was, in its largest unit: `3 d`, `5 h`, `12 min`, `40 s`."""
    seconds = max(0, round((now - since).total_seconds()))
    for name in ("d", "h", "min"):
        if seconds >= 2 * _SIZES[name]:
            return f"{seconds // _SIZES[name]} {name}"
    return f"{seconds} s"


def read_age(text: str) -> timedelta:
    """Read `90s`, `15min`, `2h`, `7d`; raises `InvalidInputError`."""
    found = re.fullmatch(r"(\d{1,6}) ?(s|min|h|d)", text, re.A)
    if found is None:
        raise InvalidInputError(f"{text!r} is no age; write one like 90s, 15min, 2h or 7d")
    return timedelta(seconds=int(found[1]) * _SIZES[found[2]])
