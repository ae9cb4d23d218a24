"""The worker's Celery app, whose first process dies when a turn that has failed is to become a dead letter.

`TEST_POINT` says where: `before` it is one, or `after` that and before the turn leaves its mailbox. The
process that dies leaves the file `TEST_DIED`; all others pass.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import worker.ending
from inturn.contract import TurnResult
from inturn.turns import Head
from worker.burying import bury
from worker.celery import app as app
from worker.runtime import Runtime


def _die() -> None:
    try:
        os.close(os.open(os.environ["TEST_DIED"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _bury(runtime: Runtime, session_id: str, head: Head, ended: Sequence[TurnResult]) -> None:
    failed = any(result.error is not None for result in ended)
    if failed and os.environ["TEST_POINT"] == "before":
        _die()
    bury(runtime, session_id, head, ended)
    if failed:
        _die()


worker.ending.bury = _bury  # type: ignore[attr-defined]
