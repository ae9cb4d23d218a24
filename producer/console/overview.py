"""Overview: how much waits, what needs somebody, which workers there are, and what retention has done."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from inturn.turns.backlog import BacklogReader
from inturn.turns.retention_runs import RetentionRuns

from ..runtime import Web
from .door import Signed
from .pages import PREFIX, ConsoleRoute, answer

router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=ConsoleRoute)

OVERDUE_SECONDS = 60.0
"""From when on it is alarming that nobody attends to a turn that is due; sweepers come every second."""
MOST_RUNS = 5
"""Runs of retention that are shown."""


@router.get("")
def overview(request: Request, web: Web, _: Signed) -> Response:
    """The first page."""
    runs = RetentionRuns(web.redis, web.settings)
    unfinished = runs.unfinished()
    backlog = BacklogReader(web.redis, web.settings).read()
    return answer(
        request,
        "overview.html",
        backlog=backlog,
        is_overdue=backlog.turns_overdue > OVERDUE_SECONDS,
        doubtful=sum(1 for _ in web.deliveries.outcomes.read()),
        workers=web.desk.workers.look(),
        runs=([] if unfinished is None else [unfinished.report]) + runs.reports()[:MOST_RUNS],
    )
