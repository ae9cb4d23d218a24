"""Agents: routes, steps and a language model, for one conversation at a time.

Importing this package loads nothing; each name below loads what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inturn.agent.agent import Agent
    from inturn.agent.branch import Branch
    from inturn.agent.context import TurnContext
    from inturn.agent.hooks import Hooks
    from inturn.agent.loading import load_agent
    from inturn.agent.offline import OfflineProvider
    from inturn.agent.openai import OpenAIProvider, Price
    from inturn.agent.provider import ModelReply, ModelRequest, Provider, ToolCall, ToolRound, ToolSpec
    from inturn.agent.route import Route
    from inturn.agent.said import Said
    from inturn.agent.scripted import ScriptedProvider
    from inturn.agent.step import Step
    from inturn.agent.stream import TurnStream
    from inturn.agent.tools import Tool, ToolError, tool

_HOMES = {
    "Agent": "inturn.agent.agent",
    "Branch": "inturn.agent.branch",
    "Hooks": "inturn.agent.hooks",
    "ModelReply": "inturn.agent.provider",
    "ModelRequest": "inturn.agent.provider",
    "OfflineProvider": "inturn.agent.offline",
    "OpenAIProvider": "inturn.agent.openai",
    "Price": "inturn.agent.openai",
    "Provider": "inturn.agent.provider",
    "Route": "inturn.agent.route",
    "Said": "inturn.agent.said",
    "ScriptedProvider": "inturn.agent.scripted",
    "Step": "inturn.agent.step",
    "Tool": "inturn.agent.tools",
    "ToolCall": "inturn.agent.provider",
    "ToolError": "inturn.agent.tools",
    "ToolRound": "inturn.agent.provider",
    "ToolSpec": "inturn.agent.provider",
    "TurnContext": "inturn.agent.context",
    "TurnStream": "inturn.agent.stream",
    "load_agent": "inturn.agent.loading",
    "tool": "inturn.agent.tools",
}

__all__ = [
    "Agent",
    "Branch",
    "Hooks",
    "ModelReply",
    "ModelRequest",
    "OfflineProvider",
    "OpenAIProvider",
    "Price",
    "Provider",
    "Route",
    "Said",
    "ScriptedProvider",
    "Step",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolRound",
    "ToolSpec",
    "TurnContext",
    "TurnStream",
    "load_agent",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
