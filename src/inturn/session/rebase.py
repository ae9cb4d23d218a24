"""rebase: bring the changes of a turn onto a session that others changed meanwhile."""

from __future__ import annotations

from typing import Any

from inturn.session.state import SessionState

_BY_KEY = ("data", "metadata", "journal", "outbox")
_TOGETHER = (
    ("status", "completed_at"),
    ("current_route", "current_step", "route_history", "pending"),
    ("agent_name",),
    ("schema_version",),
    ("history_start", "summary"),
)


def rebase(session: SessionState, *, base: SessionState, onto: SessionState) -> None:
    """Change `session`, which was made from `base`, into what the same changes would make of `onto`.

    What `session` changed stays as it is; everything else becomes that of `onto`. Data, metadata, journal
    and outbox are compared key by key, the status with its time, and the position (route, step, their
    history and what is pending) as a whole.
    """
    for name in _BY_KEY:
        setattr(session, name, _merge(getattr(session, name), getattr(base, name), getattr(onto, name)))
    routes = session.data_by_route.keys() | onto.data_by_route.keys()
    merged = {
        route: _merge(*(state.data_by_route.get(route, {}) for state in (session, base, onto)))
        for route in routes
    }
    session.data_by_route = {route: data for route, data in merged.items() if data}
    for names in _TOGETHER:
        if all(getattr(session, name) == getattr(base, name) for name in names):
            for name in names:
                setattr(session, name, getattr(onto, name))
    user_id = onto.user_id if session.user_id == base.user_id else session.user_id
    schema_version = session.schema_version
    session.created_at = onto.created_at
    session.adopt(onto)
    session.user_id, session.schema_version = user_id, schema_version


def _merge(mine: dict[str, Any], base: dict[str, Any], onto: dict[str, Any]) -> dict[str, Any]:
    absent = object()
    changed = {
        key: mine.get(key, absent)
        for key in mine.keys() | base.keys()
        if mine.get(key, absent) != base.get(key, absent)
    }
    return {key: value for key, value in {**onto, **changed}.items() if value is not absent}
