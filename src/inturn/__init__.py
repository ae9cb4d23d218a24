"""inturn runs the turns of chat agents on Celery, one at a time per session and in order.

Importing this package loads neither Celery, Redis, psycopg nor openai; each name below loads what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inturn.agent import Agent, OfflineProvider, OpenAIProvider, Route, Step
    from inturn.client import Client, TurnHandle
    from inturn.contract import Response
    from inturn.errors import InturnError
    from inturn.persistence import PersistenceManager, open_adapter
    from inturn.session import SessionManager, create_session, create_session_id
    from inturn.settings import Settings

_HOMES = {
    "Agent": "inturn.agent",
    "Client": "inturn.client",
    "InturnError": "inturn.errors",
    "OfflineProvider": "inturn.agent",
    "OpenAIProvider": "inturn.agent",
    "PersistenceManager": "inturn.persistence",
    "Response": "inturn.contract",
    "Route": "inturn.agent",
    "SessionManager": "inturn.session",
    "Settings": "inturn.settings",
    "Step": "inturn.agent",
    "TurnHandle": "inturn.client",
    "create_session": "inturn.session",
    "create_session_id": "inturn.session",
    "open_adapter": "inturn.persistence",
}

__all__ = [
    "Agent",
    "Client",
    "InturnError",
    "OfflineProvider",
    "OpenAIProvider",
    "PersistenceManager",
    "Response",
    "Route",
    "SessionManager",
    "Settings",
    "Step",
    "TurnHandle",
    "create_session",
    "create_session_id",
    "open_adapter",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
