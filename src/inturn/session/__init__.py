"""Sessions: state, history and the manager that keeps both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inturn.ids import create_session_id
from inturn.session.state import (
    HistoryItem,
    Message,
    RouteHistoryEntry,
    RouteRef,
    SessionState,
    StepRef,
    TurnRecord,
    create_session,
)

if TYPE_CHECKING:
    from inturn.session.manager import SessionManager

__all__ = [
    "HistoryItem",
    "Message",
    "RouteHistoryEntry",
    "RouteRef",
    "SessionManager",
    "SessionState",
    "StepRef",
    "TurnRecord",
    "create_session",
    "create_session_id",
]


def __getattr__(name: str) -> Any:
    # The manager stands above the persistence layer, which itself needs the state: import it late.
    if name == "SessionManager":
        from inturn.session.manager import SessionManager

        return SessionManager
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
