"""Overview: how much waits, what needs somebody, which workers there are, and what retention has done."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from inturn.turns.batch import Call, send
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys
from inturn.turns.retention_runs import RetentionRuns

from ..runtime import Runtime, Web
from .door import Signed
from .pages import PREFIX, ConsoleRoute, answer

router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=ConsoleRoute)

OVERDUE_SECONDS = 60.0
"""How long after it was due a session counts as one that nobody attends to; sweepers come every second."""
MOST_RUNS = 5
"""Runs of retention that are shown."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many there are, in all sessions together.

    `overdue` are sessions whose turns wait and that nobody has attended to for a minute after it was time.
    """

    turns: int
    sessions: int
    overdue: int
    dead: int
    deliveries: int
    doubtful: int


@router.get("")
def overview(request: Request, web: Web, _: Signed) -> Response:
    """The first page."""
    runs = RetentionRuns(web.redis, web.settings)
    unfinished = runs.unfinished()
    reports = runs.reports()[:MOST_RUNS]
    return answer(
        request,
        "overview.html",
        counts=_counts(web),
        workers=web.desk.workers.look(),
        unfinished=None if unfinished is None else unfinished.report,
        reports=reports,
    )


def _counts(web: Runtime) -> Counts:
    keys, now = Keys(web.settings.key_prefix), time.time() * 1000
    due = round(now - OVERDUE_SECONDS * 1000)
    kept = round(now - web.settings.dead_days * 86_400_000)
    calls = [Call(index, ("ZCARD", index)) for index in keys.indexes]
    calls += [Call(index, ("ZCOUNT", index, "-inf", due)) for index in keys.indexes]
    calls += [Call(index, ("ZCOUNT", index, f"({kept}", "+inf")) for index, *_ in keys.dead]
    with redis_errors():
        found = send(web.redis, calls)
    size = len(keys.indexes)
    ended = list(web.deliveries.outcomes.read())
    return Counts(
        turns=web.mailbox.depth(),
        sessions=sum(found[:size]),
        overdue=sum(found[size : 2 * size]),
        dead=sum(found[2 * size :]),
        deliveries=web.deliveries.mailbox.depth(),
        doubtful=len(ended),
    )
