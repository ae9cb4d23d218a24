"""inturn runs the turns of chat agents on Celery, one at a time per session and in order.

Importing this package loads neither Celery, Redis, psycopg nor openai; each name below loads what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inturn.agent import (
        Agent,
        Branch,
        Hooks,
        OfflineProvider,
        OpenAIProvider,
        Route,
        Step,
        Tool,
        ToolError,
        TurnContext,
        tool,
    )
    from inturn.client import Client, TurnHandle
    from inturn.contract import Piece, Response
    from inturn.errors import InturnError
    from inturn.persistence import PersistenceManager, open_adapter
    from inturn.session import SessionManager, create_session, create_session_id
    from inturn.settings import Settings

_HOMES = {
    "Agent": "inturn.agent",
    "Branch": "inturn.agent",
    "Client": "inturn.client",
    "Hooks": "inturn.agent",
    "InturnError": "inturn.errors",
    "OfflineProvider": "inturn.agent",
    "OpenAIProvider": "inturn.agent",
    "PersistenceManager": "inturn.persistence",
    "Piece": "inturn.contract",
    "Response": "inturn.contract",
    "Route": "inturn.agent",
    "SessionManager": "inturn.session",
    "Settings": "inturn.settings",
    "Step": "inturn.agent",
    "Tool": "inturn.agent",
    "ToolError": "inturn.agent",
    "TurnContext": "inturn.agent",
    "TurnHandle": "inturn.client",
    "create_session": "inturn.session",
    "create_session_id": "inturn.session",
    "open_adapter": "inturn.persistence",
    "tool": "inturn.agent",
}

__all__ = [
    "Agent",
    "Branch",
    "Client",
    "Hooks",
    "InturnError",
    "OfflineProvider",
    "OpenAIProvider",
    "PersistenceManager",
    "Piece",
    "Response",
    "Route",
    "SessionManager",
    "Settings",
    "Step",
    "Tool",
    "ToolError",
    "TurnContext",
    "TurnHandle",
    "create_session",
    "create_session_id",
    "open_adapter",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
