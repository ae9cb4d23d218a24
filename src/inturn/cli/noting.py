"""Noting: what a command looks at, or does, past the store: for the audit log."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from inturn.audit.log import AuditLog
from inturn.audit.records import Action
from inturn.settings import Settings


def note_down(
    settings: Settings, action: Action, call: str, session_ids: Iterable[str], turn_id: str | None = None
) -> None:
    """Add a record, before it happens. Raises `AuditUnavailableError`: then it must not happen.

    Without an audit log, or of no session, it does nothing.
    """
    ids = list(dict.fromkeys(session_ids))
    if settings.audit_log is None or not ids:
        return
    key = None if settings.audit_key is None else settings.audit_key.get_secret_value()
    with closing(AuditLog(settings.audit_log, key=key)) as log:
        log.append(action, session_ids=ids, turn_id=turn_id, call=f"cli_{call}")
