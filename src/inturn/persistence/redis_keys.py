"""The names of all keys that RedisAdapter has in Redis, and how what is found by them is ordered.

| key | type | holds |
| --- | --- | --- |
| `<prefix>session:<session>` | hash | `row`, `version`, `count` of messages; `at`, the time of the last change; `indexes`, the keys it is named in; `token` of the last commit; `turn:<turn>` -> record |
| `<prefix>messages:<session>` | hash | number -> user, time and ID, row; the numbers `first`, `last` and `base`, which a sequence counts from; `users`, in whose indexes they are named |
| `<prefix>message-ids` | hash | message ID -> session and number |
| `<prefix>sessions[:user=...][:agent=...][:status=...]` | zset | sessions: time and ID |
| `<prefix>user-messages:<user>` | zset | messages of a user: time and ID, session, number |

All scores are 0, so a zset is in the order of its names' bytes: UTF-8 sorts as code points do, and the times
have one length. So a page begins exactly after a time and an ID, and no time is too precise. A session is
named in the index of each combination of what it has of user, agent and status: every query reads one index,
and only what it returns.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from inturn.persistence.adapter import SessionQuery

END = b"\xff"
"""Sorts behind every character: no UTF-8 has it."""


class Keys:
    """The names of keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.message_ids = f"{prefix}message-ids"

    def session(self, session_id: str) -> str:
        """A session with its turns."""
        return f"{self.prefix}session:{session_id}"

    def messages(self, session_id: str) -> str:
        """A session's messages."""
        return f"{self.prefix}messages:{session_id}"

    def user_messages(self, user_id: str) -> str:
        """The index of a user's messages."""
        return f"{self.prefix}user-messages:{user_id}"

    def index(self, query: SessionQuery) -> str:
        """The index that answers a query."""
        return self._index({"user": query.user_id, "agent": query.agent_name, "status": query.status})

    def indexes(self, row: Mapping[str, Any]) -> list[str]:
        """All indexes that a session is named in."""
        fields = {"user": row["user_id"], "agent": row["agent_name"], "status": row["status"]}
        given = [(name, value) for name, value in fields.items() if value is not None]
        return [self._index(dict(some)) for size in range(4) for some in combinations(given, size)]

    def _index(self, fields: Mapping[str, str | None]) -> str:
        # A colon ends a value, so none may be in one.
        parts = [
            f":{name}={value.replace('%', '%25').replace(':', '%3A')}"
            for name, value in fields.items()
            if value is not None
        ]
        return f"{self.prefix}sessions{''.join(parts)}"


def sortable(time: datetime) -> str:
    """A time as a text of 26 characters that sorts as times do; every name begins with one."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")[:26]


class Bounds:
    """The part of an index that is asked for, as BYLEX takes it."""

    def __init__(self) -> None:
        self.low, self.high = b"-", b"+"

    def above(self, name: bytes) -> None:
        """Leave out what does not sort after `name`."""
        self.low = max(self.low, b"(" + name) if self.low != b"-" else b"(" + name

    def below(self, name: bytes) -> None:
        """Leave out what does not sort before `name`."""
        self.high = min(self.high, b"(" + name) if self.high != b"+" else b"(" + name
