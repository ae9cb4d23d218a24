"""Pages of rows that are at hand in Python: for stores that cannot search and sort by themselves.

As everywhere in inturn, times in a row may be datetimes or texts in ISO format.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from inturn.persistence import rows
from inturn.persistence.adapter import MessageQuery, Page, SessionQuery
from inturn.session.state import Message, SessionState

_TYPES = {"updated_at": datetime, "created_at": datetime, "id": str, "sequence": int}


def page_of_sessions(found: Iterable[rows.Row], query: SessionQuery) -> Page[SessionState]:
    """Check a query and give its page of `found`: rows of sessions, in any order."""
    rows.check_session_query(query)
    matching = [
        row
        for row in found
        if query.user_id in (None, row["user_id"])
        and query.agent_name in (None, row["agent_name"])
        and query.status in (None, row["status"])
        and (query.older_than is None or _comparable(row["updated_at"], datetime) < query.older_than)
        and (query.newer_than is None or _comparable(row["updated_at"], datetime) > query.newer_than)
    ]
    page, cursor = _page(matching, query, "sessions", "updated_at", "id")
    return Page([rows.listed_session(row, query) for row in page], cursor)


def page_of_messages(found: Iterable[rows.Row], query: MessageQuery) -> Page[Message]:
    """Check a query and give its page of `found`: rows of messages, in any order."""
    rows.check_message_query(query)
    if query.user_id is not None:
        mine = [row for row in found if row["user_id"] == query.user_id]
        page, cursor = _page(mine, query, "messages of a user", "created_at", "id")
    else:
        mine = [
            row
            for row in found
            if row["session_id"] == query.session_id
            and (query.after is None or row["sequence"] > query.after)
            and (query.before is None or row["sequence"] < query.before)
        ]
        page, cursor = _page(mine, query, "messages of a session", "sequence")
    return Page([rows.message_from_row(row) for row in page], cursor)


def _page(
    found: list[rows.Row], query: SessionQuery | MessageQuery, kind: str, *columns: str
) -> tuple[list[rows.Row], str | None]:
    newest, kind = query.order == "newest", f"{kind}, {query.order} first"
    types = [_TYPES[name] for name in columns]
    keys = (tuple(map(_comparable, (row[name] for name in columns), types)) for row in found)
    # A key names its row alone, so rows are never compared.
    keyed = sorted(zip(keys, found, strict=True), reverse=newest)
    if query.cursor is not None:
        edge = tuple(rows.decode_cursor(query.cursor, kind, *types))
        keyed = [(key, row) for key, row in keyed if (key < edge if newest else key > edge)]
    page = keyed[: query.limit]
    cursor = rows.encode_cursor(kind, *page[-1][0]) if len(keyed) > len(page) else None
    return [row for _, row in page], cursor


def _comparable(value: Any, kind: type) -> Any:
    return datetime.fromisoformat(value) if kind is datetime and isinstance(value, str) else value
