"""Where the servers are: named by the environment, or those of an `inturn dev` that runs here."""

from __future__ import annotations

import json
import os
from pathlib import Path

from inturn.errors import MailboxError
from inturn.settings import Settings, load_settings
from inturn.turns.connection import connect, redis_errors

NOTE = Path(".inturn/dev/servers.json")
"""Written by `inturn dev`, so that `inturn chat` in the next terminal finds its servers."""


def local_settings() -> Settings:
    """Read the settings; where the environment names no Redis, use that of an `inturn dev` that runs here.

    So is its store, unless the environment names another.
    """
    settings = load_settings()
    if _is_named(settings, "redis_url"):
        return settings
    try:
        note = json.loads(NOTE.read_text())
        found = load_settings(**{name: url for name, url in note.items() if not _is_named(settings, name)})
        with connect(found) as client, redis_errors():
            client.ping()
    except (OSError, ValueError, MailboxError):
        return settings
    return found


def _is_named(settings: Settings, name: str) -> bool:
    names = {name, name.upper(), f"INTURN_{name.upper()}"}
    return bool(names & (settings.model_fields_set | set(os.environ)))


def write_note(folder: Path, redis_url: str, database_url: str) -> None:
    """Leave word of where the servers are; only the user may read it, as URLs can hold passwords."""
    note = folder / NOTE.name
    note.touch(mode=0o600)
    note.write_text(json.dumps({"redis_url": redis_url, "database_url": database_url}))
