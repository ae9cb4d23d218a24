"""Listings: the conditions, order and cursor of a query, in words that all SQL databases know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from inturn.persistence import rows
from inturn.persistence.adapter import MessageQuery, Page, SessionQuery

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listing:
    """The end of a SELECT, with `{name}` where a parameter goes, and the parameters."""

    text: str
    parameters: dict[str, Any]
    _kind: str
    _key: tuple[str, ...]

    def page(self, found: list[T]) -> Page[T]:
        """Make a page of what was found: one item more than asked for tells that there are more."""
        limit = self.parameters["limit"] - 1
        if len(found) <= limit:
            return Page(found)
        key = (getattr(found[limit - 1], name) for name in self._key)
        return Page(found[:limit], rows.encode_cursor(self._kind, *key))


def list_sessions(query: SessionQuery) -> Listing:
    """Check a query and put it into words."""
    rows.check_session_query(query)
    conditions = {
        "user_id": "user_id = {user_id}",
        "agent_name": "agent_name = {agent_name}",
        "status": "status = {status}",
        "older_than": "updated_at < {older_than}",
        "newer_than": "updated_at > {newer_than}",
    }
    return _listing("sessions", query, conditions, {"updated_at": datetime, "id": str})


def list_messages(query: MessageQuery) -> Listing:
    """Check a query and put it into words."""
    rows.check_message_query(query)
    if query.user_id is not None:
        conditions = {"user_id": "user_id = {user_id}"}
        return _listing("messages of a user", query, conditions, {"created_at": datetime, "id": str})
    conditions = {
        "session_id": "session_id = {session_id}",
        "after": "sequence > {after}",
        "before": "sequence < {before}",
    }
    return _listing("messages of a session", query, conditions, {"sequence": int})


def _listing(
    kind: str, query: SessionQuery | MessageQuery, conditions: Mapping[str, str], key: Mapping[str, type]
) -> Listing:
    parameters = {name: value for name in conditions if (value := getattr(query, name)) is not None}
    terms = [conditions[name] for name in parameters]
    newest = query.order == "newest"
    kind = f"{kind}, {query.order} first"
    if query.cursor is not None:
        last = rows.decode_cursor(query.cursor, kind, *key.values())
        parameters |= {f"last_{name}": value for name, value in zip(key, last, strict=True)}
        after = ", ".join(f"{{last_{name}}}" for name in key)
        terms.append(f"({', '.join(key)}) {'<' if newest else '>'} ({after})")
    where = f"WHERE {' AND '.join(terms)} " if terms else ""
    order = ", ".join(f"{name} {'DESC' if newest else 'ASC'}" for name in key)
    parameters["limit"] = query.limit + 1
    return Listing(f"{where}ORDER BY {order} LIMIT {{limit}}", parameters, kind, tuple(key))
