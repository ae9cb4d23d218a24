"""Retention: which sessions are abandoned and which are deleted, in batches and beside running turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Literal

import structlog

from inturn.channels import list_channels
from inturn.contract import CLEANUP_SESSIONS, MAINTENANCE_QUEUE
from inturn.errors import InvalidInputError, SessionConflictError, StoreError, StoreUnavailableError
from inturn.persistence import MessageQuery, Page, SessionQuery, Target
from inturn.persistence.exporting import SessionExport
from inturn.retention import STAGES, RetentionReport, RetentionRun, Stage, channel_of
from inturn.session import SessionState
from inturn.session.state import Status, UnreadableSession, utcnow
from inturn.turns.retention_runs import RetentionRuns
from inturn.turns.traces import Traces

from .runtime import Runtime, stopping

log = structlog.get_logger(__name__)

PAGE = 200
"""Sessions that are looked at at once; a run that ends goes on with the page in which it was."""
BATCH = 25
"""Sessions that are deleted in one transaction: with 20 messages each, that takes milliseconds."""
REST = 4.0
"""How long a run rests after each piece of work, in times of what it took: turns need processor and store."""
BUDGET_SECONDS = 60.0
"""How long one task is at work, below the broker's visibility time-out; the next one goes on."""

OWN_AGENT = "inturn"
"""The agent of sessions that are inturn's own notes: that somebody was erased, how far an archive is."""
MOST_NAMED = 20
"""Sessions that a report names because they cannot be read; the log has all of them."""
LEAST_OWN = timedelta(days=30)
"""No rule for conversations makes these shorter: a turn that comes late must still find them."""

_STATUS: dict[Stage, Status] = {"completed": "completed", "abandoned": "abandoned", "idle": "active"}


def clean_up(runtime: Runtime, *, dry_run: bool = False) -> RetentionReport:
    """Apply the policy of the settings for a while; what is left is asked for in a task of its own.

    A session with a waiting turn or delivery stays, and one whose user wants no more messages (see
    `Channel.may_send`), one that cannot be read, and one that changed since it was selected: deletion is
    bound to the version that was seen. If another process is at work, nothing is done, and its report so far
    is returned.
    """
    runtime.prepare_store()
    if dry_run:
        return _Work(runtime, RetentionRun(report=RetentionReport(dry_run=True)), None).go_on()
    runs = RetentionRuns(runtime.redis, runtime.settings)
    with runs.alone() as save:
        run = runs.unfinished() or RetentionRun()
        if save is None:
            return run.report
        report = _Work(runtime, run, save).go_on()
        if report.finished:
            runs.end(report)
    log.info("retention", **report.model_dump(mode="json"))
    if not report.finished:
        ask_for_more(runtime)
    return report


def ask_for_more(runtime: Runtime) -> None:
    """Have whichever worker is free go on with the run."""
    runtime.app.send_task(CLEANUP_SESSIONS, queue=MAINTENANCE_QUEUE, ignore_result=True)


class _Work:
    """One task's part of a run; without `save` it changes nothing."""

    def __init__(
        self, runtime: Runtime, run: RetentionRun, save: Callable[[RetentionRun], None] | None
    ) -> None:
        self._runtime = runtime
        self._adapter = runtime.adapter
        self._run = run
        self._report = run.report
        self._save = save
        self._policy = runtime.settings.retention_policy
        self._traces = Traces(runtime.redis, runtime.settings, runtime.app)
        self._channels = list_channels(runtime.channels)
        self._rested = time.monotonic()
        self._deadline = self._rested + BUDGET_SECONDS

    @cached_property
    def _export(self) -> SessionExport | None:
        place = self._runtime.settings.retention_export
        return None if place is None else SessionExport(place)

    def go_on(self) -> RetentionReport:
        self._forget_doomed()
        while not self._is_over():
            if not self._next_page():
                break
            self._note()
        return self._report

    def _next_page(self) -> bool:
        """Do the next page; False: it was not done to its end, or it was the last one of all."""
        stage = self._run.stage
        page = self._find(stage)
        due, skipped = self._due(stage, self._readable(page.items))
        self._rest()
        done = self._abandon(due) if stage == "idle" else self._delete(stage, due)
        if not done:
            return False
        self._report.skipped += skipped
        self._run.cursor = page.cursor
        if page.cursor is None:
            following = STAGES[STAGES.index(stage) + 1 :]
            if not following:
                self._report.finished = True
                return False
            self._run.stage = following[0]
        return True

    def _find(self, stage: Stage) -> Page[SessionState]:
        least = self._policy.least(stage)
        if least is None:
            return Page([])
        query = SessionQuery(
            status=_STATUS[stage],
            older_than=self._report.started_at - least,
            order="oldest",
            cursor=self._run.cursor,
            limit=PAGE,
            unreadable=True,
        )
        try:
            return self._adapter.find_sessions(query)
        except InvalidInputError:
            if query.cursor is None:
                raise
            # It is of another store, or of another release.
            self._run.cursor = None
            return self._find(stage)

    def _readable(self, sessions: Sequence[SessionState]) -> list[SessionState]:
        """Those that can be read; of the others nobody knows what would be deleted with them."""
        for session in sessions:
            if isinstance(session, UnreadableSession):
                self._tell_unreadable(session.id, session.reason)
        return [session for session in sessions if not isinstance(session, UnreadableSession)]

    def _tell_unreadable(self, session_id: str, reason: str) -> None:
        report = self._report
        if session_id not in report.unreadable_sessions:
            log.warning("session stays: it cannot be read", session_id=session_id, error=reason)
            report.unreadable += 1
            report.unreadable_sessions = [*report.unreadable_sessions, session_id][:MOST_NAMED]

    def _due(self, stage: Stage, sessions: Sequence[SessionState]) -> tuple[list[SessionState], int]:
        """Those of a page that are to go, and how many are old and stay."""
        old = [session for session in sessions if self._is_old(stage, session)]
        ids = [session.id for session in old]
        busy = self._runtime.mailbox.waiting(ids) | self._runtime.deliveries.mailbox.waiting(ids)
        if self._runtime.inbox is not None:
            busy |= self._runtime.inbox.among(ids)
        # Who has said STOP must not be written to again because what they said was forgotten.
        channels = self._runtime.channels.values()
        busy |= {session.id for session in old if any(channel.may_send(session) for channel in channels)}
        return [session for session in old if session.id not in busy], len(busy)

    def _is_old(self, stage: Stage, session: SessionState) -> bool:
        age = self._policy.age(stage, session.agent_name, channel_of(session, self._channels))
        if age is not None and session.agent_name == OWN_AGENT:
            age = max(age, LEAST_OWN)
        return age is not None and session.updated_at < self._report.started_at - age

    def _delete(self, stage: Literal["completed", "abandoned"], due: Sequence[SessionState]) -> bool:
        report = self._report
        if self._save is None:
            report.deleted[stage] += len(due)
            report.messages += sum(session.message_count for session in due)
            return True
        if not due:
            return True
        stays: dict[str, str] = {}
        doomed: dict[str, list[str]] = {}
        for session in due:
            try:
                doomed[session.id] = self._turns(session)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                stays[session.id] = str(error)
        due = [session for session in due if session.id not in stays]
        if self._export is not None and due:
            stays |= self._export.write(self._adapter, due).unreadable
            due = [session for session in due if session.id not in stays]
            report.exported += len(due)
        for session_id, reason in stays.items():
            self._tell_unreadable(session_id, reason)
        self._run.doomed = {session.id: doomed[session.id] for session in due}
        self._note()
        self._rest()
        gone: set[str] = set()
        done = 0
        for start in range(0, len(due), BATCH):
            if start and self._is_over():
                break
            some = due[start : start + BATCH]
            gone |= set(
                self._adapter.delete_sessions([Target(session.id, session.version) for session in some])
            )
            done += len(some)
            self._rest()
        self._traces.forget({session_id: self._run.doomed[session_id] for session_id in gone})
        self._rest()
        self._run.doomed = {}
        report.deleted[stage] += len(gone)
        report.messages += sum(session.message_count for session in due if session.id in gone)
        if done < len(due):
            return False
        report.skipped += len(due) - len(gone)
        return True

    def _abandon(self, due: Sequence[SessionState]) -> bool:
        for place, session in enumerate(due):
            if self._save is not None:
                if place and self._is_over():
                    return False
                session.set_status("abandoned")
                try:
                    self._adapter.commit(session, expected_version=session.version)
                except SessionConflictError:
                    self._report.skipped += 1
                    continue
                self._rest()
            self._report.abandoned += 1
        return True

    def _turns(self, session: SessionState) -> list[str]:
        """The turns of a session whose streams and results may still be there; of old ones there are none."""
        if (utcnow() - session.updated_at).total_seconds() > self._traces.seconds:
            return []
        turns: dict[str, None] = dict.fromkeys(session.outbox)
        cursor: str | None = None
        while True:
            page = self._adapter.find_messages(MessageQuery(session_id=session.id, cursor=cursor, limit=1000))
            turns |= {message.turn_id: None for message in page.items if message.turn_id is not None}
            if (cursor := page.cursor) is None:
                return list(turns)

    def _forget_doomed(self) -> None:
        """End what a process has left that died between the store and Redis."""
        doomed = self._run.doomed
        gone = [session_id for session_id in doomed if self._adapter.load(session_id) is None]
        self._traces.forget({session_id: doomed[session_id] for session_id in gone})
        if gone and self._run.stage != "idle":
            self._report.deleted[self._run.stage] += len(gone)
        self._run.doomed = {}

    def _note(self) -> None:
        self._report.changed_at = utcnow()
        if self._save is not None:
            self._save(self._run)

    def _rest(self) -> None:
        if self._save is not None:  # for who only counts, nobody has to wait
            time.sleep(min(1.0, REST * (time.monotonic() - self._rested)))
        self._rested = time.monotonic()

    def _is_over(self) -> bool:
        return time.monotonic() > self._deadline or bool(stopping)
