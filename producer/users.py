"""Users over HTTP: all there is of one user, handed out as it is read, and its erasure by a worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator

from inturn.erasure import ErasureReport
from inturn.ids import check_id
from inturn.people import export_user
from inturn.turns.connection import redis_errors

from .auth import Asks, Caller
from .descriptions import problems
from .problems import Refusal, not_found
from .runtime import Runtime, Web
from .views import decoded

if TYPE_CHECKING:
    from celery.result import AsyncResult

router = APIRouter(tags=["users"])

PATIENCE = 10.0
"""Seconds a turn that runs is given to end, as the request waits for it; then it is cut off."""
LONGEST_WAIT = 30.0
"""Seconds a request waits for the worker that erases."""

UserId = Annotated[
    str,
    AfterValidator(decoded),
    AfterValidator(lambda value: check_id(value, "user ID")),
    Path(description="The user's ID, percent-encoded.", examples=["ann"]),
]
_MAY_FAIL = problems(401, 403, 404, 422, 429, 503)


@router.get("/users/{user_id}/export", responses=_MAY_FAIL, response_class=StreamingResponse)
def export(user_id: UserId, web: Web, caller: Asks) -> StreamingResponse:
    """Hand out all there is of a user, one JSON object a line: `type` says what each is.

    For an API key, or for the user themselves. What breaks off before the line of the type `end` is not
    whole.
    """
    _check(caller, user_id)
    lines = _lines(web, user_id)
    first = next(lines)  # what is wrong before anything was read is answered as a problem
    headers = {"Content-Disposition": 'attachment; filename="export.jsonl"', "Cache-Control": "no-store"}

    def all_lines() -> Iterator[bytes]:
        yield first
        yield from lines

    return StreamingResponse(all_lines(), media_type="application/x-ndjson", headers=headers)


@router.delete("/users/{user_id}", responses=_MAY_FAIL)
def erase(user_id: UserId, web: Web, caller: Asks) -> ErasureReport:
    """Remove all there is of a user, and tell how much it was; what was in it is told nowhere.

    For an API key, or for the user themselves. A worker does it, for it takes rights that a web process need
    not have. That takes some seconds; a turn that runs is given ten more to end. 503 after half a minute:
    no worker has come to its end yet. Whatever becomes of the request: repeat it, and it goes on. `finished`
    false: they were writing all the while; repeat it too.
    """
    _check(caller, user_id)
    report = _report(web.client.erase_user(user_id, patience=PATIENCE))
    if not caller.is_trusted:
        report.elsewhere = []  # whose sessions those are is not for them to know
    return report


def _report(task: AsyncResult[Any]) -> ErasureReport:
    until = time.monotonic() + LONGEST_WAIT
    with redis_errors():
        # Asked for and not waited for, as Celery's way of waiting is not made for many threads.
        while not task.ready():
            if time.monotonic() > until:
                raise Refusal(
                    503,
                    "not-erased-yet",
                    "no worker of the queue maintenance has ended it yet; repeat the request",
                )
            time.sleep(0.1)
        if task.failed():
            raise Refusal(503, "not-erased-yet", "the worker could not end it; repeat the request")
        # It is left to expire: others may wait for the same one.
        return ErasureReport.model_validate(task.result)


def _check(caller: Caller, user_id: str) -> None:
    if not caller.is_trusted and caller.user_id != user_id:
        raise not_found("user")


def _lines(web: Runtime, user_id: str) -> Iterator[bytes]:
    with web.store.use() as adapter:
        for line in export_user(web.settings, adapter, web.redis, user_id):
            yield json.dumps(line).encode() + b"\n"
    yield json.dumps({"type": "end"}).encode() + b"\n"
