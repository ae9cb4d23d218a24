"""Retention: which sessions are abandoned and which are deleted, in batches and beside running turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import structlog
from pydantic import BaseModel

from inturn.errors import SessionConflictError
from inturn.persistence import SessionQuery, Target
from inturn.session import SessionState
from inturn.session.state import Status, utcnow

from .runtime import Runtime

log = structlog.get_logger(__name__)

BATCH = 200
BUDGET_SECONDS = 60.0


class RetentionReport(BaseModel):
    """What one run did, or with `dry_run` would have done.

    `abandoned` counts idle active sessions that were marked, `deleted` sessions that went, by status,
    `skipped` those that were due and busy; `finished` is False if the time was over before the work.
    """

    abandoned: int = 0
    deleted: dict[Literal["completed", "abandoned"], int] = {"completed": 0, "abandoned": 0}
    skipped: int = 0
    dry_run: bool = False
    finished: bool = True


def clean_up(runtime: Runtime, *, dry_run: bool = False) -> RetentionReport:
    """Apply the policy of the settings once; run again, it goes on where it stopped.

    A session with a waiting turn or delivery stays, and one whose user wants no more messages (see
    `Channel.may_send`), and one that changed since it was selected: deletion is bound to the version that was
    seen.
    """
    report = RetentionReport(dry_run=dry_run)
    deadline = time.monotonic() + BUDGET_SECONDS
    statuses: tuple[Literal["completed", "abandoned"], ...] = ("completed", "abandoned")
    for status in statuses:
        older_than = utcnow() - runtime.settings.retention[status]
        for batch in _batches(runtime, status, older_than, report, deadline):
            if dry_run:
                report.deleted[status] += len(batch)
                continue
            gone = runtime.adapter.delete_sessions([Target(session.id, session.version) for session in batch])
            runtime.dead_letters.remove_sessions(gone)
            report.deleted[status] += len(gone)
            report.skipped += len(batch) - len(gone)
    older_than = utcnow() - runtime.settings.idle
    for batch in _batches(runtime, "active", older_than, report, deadline):
        for session in batch:
            if dry_run or _abandon(runtime, session):
                report.abandoned += 1
            else:
                report.skipped += 1
    log.info("retention", **report.model_dump())
    return report


def _batches(
    runtime: Runtime, status: Status, older_than: datetime, report: RetentionReport, deadline: float
) -> Iterator[list[SessionState]]:
    cursor: str | None = None
    while True:
        if time.monotonic() > deadline:
            report.finished = False
            return
        page = runtime.adapter.find_sessions(
            SessionQuery(status=status, older_than=older_than, order="oldest", cursor=cursor, limit=BATCH)
        )
        ids = [session.id for session in page.items]
        busy = runtime.mailbox.waiting(ids) | runtime.deliveries.mailbox.waiting(ids)
        if runtime.inbox is not None:
            busy |= runtime.inbox.among(ids)
        # Who has said STOP must not be written to again because what they said was forgotten.
        busy |= {
            session.id
            for session in page.items
            if any(channel.may_send(session) for channel in runtime.channels.values())
        }
        report.skipped += len(busy)
        yield [session for session in page.items if session.id not in busy]
        cursor = page.cursor
        if cursor is None:
            return


def _abandon(runtime: Runtime, session: SessionState) -> bool:
    session.set_status("abandoned")
    try:
        runtime.adapter.commit(session, expected_version=session.version)
    except SessionConflictError:
        return False
    return True
