"""Agents: routes, steps and a language model, for one conversation at a time.

Importing this package loads nothing; each name below loads what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inturn.agent.agent import Agent
    from inturn.agent.loading import load_agent
    from inturn.agent.offline import OfflineProvider
    from inturn.agent.openai import OpenAIProvider
    from inturn.agent.provider import ModelReply, ModelRequest, Provider
    from inturn.agent.route import Route
    from inturn.agent.scripted import ScriptedProvider
    from inturn.agent.step import Step

_HOMES = {
    "Agent": "inturn.agent.agent",
    "ModelReply": "inturn.agent.provider",
    "ModelRequest": "inturn.agent.provider",
    "OfflineProvider": "inturn.agent.offline",
    "OpenAIProvider": "inturn.agent.openai",
    "Provider": "inturn.agent.provider",
    "Route": "inturn.agent.route",
    "ScriptedProvider": "inturn.agent.scripted",
    "Step": "inturn.agent.step",
    "load_agent": "inturn.agent.loading",
}

__all__ = [
    "Agent",
    "ModelReply",
    "ModelRequest",
    "OfflineProvider",
    "OpenAIProvider",
    "Provider",
    "Route",
    "ScriptedProvider",
    "Step",
    "load_agent",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
