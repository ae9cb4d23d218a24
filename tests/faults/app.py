"""The worker's own Celery app, with crash points around what it does: `celery -A tests.faults.app worker`.

Nothing of the worker is replaced. Its methods are called as they are, and before or after them the process
may die, if a token of the run says so (see `control`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any
from zlib import crc32

from celery import signals

import inturn.persistence.postgresql as postgresql
import worker.drive
import worker.request
import worker.runtime
from inturn.contract import RESPOND, UnknownPayloadError
from inturn.persistence import Committed
from inturn.session.state import Message, SessionState, TurnRecord
from inturn.turns import Mailbox
from tests.faults import releases
from tests.faults.clock import SteppingClock
from tests.faults.control import here
from worker.celery import app as app

control = here()
fence: ContextVar[int | None] = ContextVar("fence", default=None)
clock: SteppingClock | None = None
BREAK = os.environ.get("FAULTS_BREAK", "")
"""What is planted: `forget` loses turns, `blind` writes without compare-and-swap and knows no turn again."""


def watch(mailbox: Mailbox, prefix: str) -> None:
    """Note who drives which session from when to when, and die between the steps."""
    begin, finish, release = mailbox.begin, mailbox.finish, mailbox.release
    is_turns = not prefix

    def watched_begin(session_id: str, *args: Any, **options: Any) -> Any:
        begun = begin(session_id, *args, **options)
        if begun.lease is not None:
            control.note("begin", prefix + session_id, begun.lease.fence)
            if is_turns:
                fence.set(begun.lease.fence)
                control.die_at("acquire")
        return begun

    def watched_finish(lease: Any, *args: Any, **options: Any) -> Any:
        if is_turns:
            control.die_at("result")
        finished = finish(lease, *args, **options)
        if finished.outcome != "next":
            control.note("end", prefix + lease.session_id)
        if is_turns and finished.outcome != "lost":
            control.die_at("finish")
        return finished

    def watched_release(lease: Any, *args: Any, **options: Any) -> Any:
        released = release(lease, *args, **options)
        control.note("end", prefix + lease.session_id)
        return released

    mailbox.begin, mailbox.finish, mailbox.release = (  # type: ignore[method-assign]
        watched_begin,
        watched_finish,
        watched_release,
    )


def watch_store(adapter: Any) -> None:
    """Note what is about to be committed, by whom; die in the commit and after it."""
    commit: Callable[..., Committed] = adapter.commit
    load = adapter.load

    def watched_commit(
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        if turn is None:
            return commit(session, messages, expected_version=expected_version)
        true = {} if clock is None else {each.id: clock.true_time(each.created_at) for each in messages}
        times = {message_id: time.isoformat() for message_id, time in true.items()}
        control.note("commit", turn.turn_id, fence.get(), [each.id for each in messages], times)
        if BREAK == "forget" and crc32(turn.turn_id.encode()) % 10 == 0:
            return Committed(session, list(messages), turn)
        if BREAK == "blind":
            found = load(session.id)
            expected_version = 0 if found is None else found.session.version
            count = 0 if found is None else found.session.message_count
            session = session.model_copy(update={"version": expected_version, "message_count": count})
            turn = None
        committed = commit(session, messages, expected_version=expected_version, turn=turn)
        control.die_at("committed")
        return committed

    adapter.commit = watched_commit
    if BREAK == "blind":
        adapter.load = lambda session_id, *, last_messages=0, turn_id=None: load(
            session_id, last_messages=last_messages
        )


def watch_rows(rows: Callable[..., Any]) -> Callable[..., Any]:
    """A commit is one statement; for the one that dies it is put into a transaction that is never ended."""

    def watched(connection: Any, query: bytes, parameters: Mapping[str, Any]) -> Any:
        if parameters.get("turn_result") is not None and control.claim("commit"):
            with connection.transaction():
                rows(connection, query, parameters)
                control.die("commit")
        return rows(connection, query, parameters)

    return watched


def watch_all() -> None:
    """Put everything in its place."""
    runtime: Any = worker.runtime.Runtime
    start = runtime.__init__

    def started(self: Any, *args: Any) -> None:
        start(self, *args)
        watch(self.mailbox, "")
        watch(self.deliveries.mailbox, "out:")
        watch_store(self.adapter)

    runtime.__init__ = started
    postgresql._rows = watch_rows(postgresql._rows)

    request: Any = worker.request.Request
    acknowledge = request.acknowledge

    def watched_acknowledge(self: Any) -> None:
        if self.name == RESPOND:
            control.die_at("ack")
        acknowledge(self)

    request.acknowledge = watched_acknowledge

    drive: Any = worker.drive
    decode = drive.decode_payload

    def watched_decode(text: str) -> Any:
        try:
            return decode(text)
        except UnknownPayloadError:
            control.note("newer")
            raise

    drive.decode_payload = watched_decode


@signals.worker_ready.connect
def _tell(**_: Any) -> None:
    control.note("ready")


releases.become()
watch_all()
if os.environ.get("FAULTS_CLOCK"):
    clock = SteppingClock(control, every=float(os.environ["FAULTS_CLOCK"]), most=600)
    clock.start()
