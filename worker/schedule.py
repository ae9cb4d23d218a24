"""What beat asks for, and how often."""

from __future__ import annotations

from typing import Any

from inturn.contract import CLEANUP_SESSIONS, ROTATE_KEYS, WAKE_SESSIONS
from inturn.settings import Settings

ROTATE_SECONDS = 300.0
"""How often a rotation goes on, if there is one."""


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Make beat's schedule. Every entry may run twice or late; a missed one expires instead of piling up."""
    schedule: dict[str, dict[str, Any]] = {
        "retention": {
            "task": CLEANUP_SESSIONS,
            "schedule": settings.cleanup_seconds,
            "options": {"expires": settings.cleanup_seconds},
        },
        # Every worker process sweeps by itself each second; this proves from outside that sweeping works.
        "wake": {"task": WAKE_SESSIONS, "schedule": 60.0, "options": {"expires": 60.0}},
    }
    if settings.encryption_keys is not None:
        schedule["rotation"] = {
            "task": ROTATE_KEYS,
            "schedule": ROTATE_SECONDS,
            "options": {"expires": ROTATE_SECONDS},
        }
    return schedule
