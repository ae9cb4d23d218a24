"""What beat asks for, and how often."""

from __future__ import annotations

from typing import Any

from inturn.contract import CLEANUP_SESSIONS, WAKE_SESSIONS
from inturn.settings import Settings


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Make beat's schedule. Every entry may run twice or late; a missed one expires instead of piling up."""
    return {
        "retention": {
            "task": CLEANUP_SESSIONS,
            "schedule": settings.cleanup_seconds,
            "options": {"expires": settings.cleanup_seconds},
        },
        # Every worker process sweeps by itself each second; this proves from outside that sweeping works.
        "wake": {"task": WAKE_SESSIONS, "schedule": 60.0, "options": {"expires": 60.0}},
    }
