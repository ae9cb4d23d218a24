"""Channels: where messages come from and replies go to.

Importing this package loads nothing; each name below loads what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inturn.channels.change import Change
    from inturn.channels.channel import Answer, Channel, Incoming, Limits, Received, Request
    from inturn.channels.registry import list_channels, load_channels
    from inturn.channels.splitting import split_text

_HOMES = {
    "Answer": "inturn.channels.channel",
    "Change": "inturn.channels.change",
    "Channel": "inturn.channels.channel",
    "Incoming": "inturn.channels.channel",
    "Limits": "inturn.channels.channel",
    "Received": "inturn.channels.channel",
    "Request": "inturn.channels.channel",
    "list_channels": "inturn.channels.registry",
    "load_channels": "inturn.channels.registry",
    "split_text": "inturn.channels.splitting",
}

__all__ = [
    "Answer",
    "Change",
    "Channel",
    "Incoming",
    "Limits",
    "Received",
    "Request",
    "list_channels",
    "load_channels",
    "split_text",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
