"""Rotation: what is stored is sealed with the newest key, a part at a time, and where it goes on."""

from __future__ import annotations

import structlog
from pydantic import BaseModel, ValidationError

from inturn.errors import ConfigurationError
from inturn.keyring import key_ring
from inturn.persistence import open_adapter
from inturn.persistence.rotation import rotate
from inturn.turns.keys import Keys

from .runtime import Runtime

log = structlog.get_logger(__name__)

BUDGET_SECONDS = 120.0
AGAIN_SECONDS = 3600
"""When a whole run is followed by another: a process that did not have the newest key yet may have written
meanwhile. A run that finds nothing to do is the last one."""
REST_SECONDS = 30 * 86_400


class RotationReport(BaseModel):
    """How far the rotation to `key` has come: what this run did, and all of its runs up to now.

    `resting` says that there is nothing to do at present; `unreadable` sessions hold what cannot be opened.
    """

    key: str
    sessions: int = 0
    rewritten: int = 0
    unreadable: int = 0
    cursor: str | None = None
    resting: bool = False


def go_on(runtime: Runtime) -> RotationReport:
    """Seal with the newest key what is not, for about two minutes; run again, it goes on where it stopped."""
    settings = runtime.settings
    keys = key_ring(settings.encryption_keys)
    if not keys:
        raise ConfigurationError("there are no keys to encrypt with; set INTURN_ENCRYPTION_KEYS")
    place = Keys(settings.key_prefix).rotation
    report = _read(runtime.redis.get(place), keys.ids[0])
    if report.resting:
        return report
    with open_adapter(settings.database_url.get_secret_value(), pool_size=1) as store:
        if not store.supports_rewriting:
            log.warning("keys are not rotated: this store cannot rewrite", store=type(store).__name__)
            report.resting = True
            runtime.redis.set(place, report.model_dump_json(), ex=REST_SECONDS)
            return report
        done = rotate(store, keys, cursor=report.cursor, seconds=BUDGET_SECONDS)
    report.sessions += done.sessions
    report.rewritten += done.rewritten
    report.unreadable += done.unreadable
    report.cursor = done.cursor
    report.resting = done.finished
    log.info("rotation of keys", **report.model_dump(exclude={"cursor"}))
    clean = report.rewritten == report.unreadable == 0
    keep = REST_SECONDS if clean or not done.finished else AGAIN_SECONDS
    runtime.redis.set(place, report.model_dump_json(), ex=keep)
    return report


def _read(text: object, newest: str) -> RotationReport:
    """The state of the rotation to this key; a new one if it was to another."""
    try:
        if isinstance(text, bytes | str):
            found = RotationReport.model_validate_json(text)
            if found.key == newest:
                return found
    except ValidationError:
        pass  # of another release
    return RotationReport(key=newest)
