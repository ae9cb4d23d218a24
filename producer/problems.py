"""Problems: what is answered when something is wrong, in the form of RFC 9457."""

from __future__ import annotations

import json
import math
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from inturn.errors import (
    ForgedRequestError,
    InturnError,
    InvalidInputError,
    MailboxFullError,
    OverloadedError,
    SessionBusyError,
    SessionConflictError,
    SessionNotFoundError,
)

log = structlog.get_logger(__name__)

_CODES: dict[type[InturnError], int] = {
    InvalidInputError: 422,
    SessionBusyError: 409,
    ForgedRequestError: 403,
    SessionNotFoundError: 404,
    SessionConflictError: 409,
    MailboxFullError: 429,
    OverloadedError: 429,
}
"""The status of an error; any other is 503 if it is retryable, else 500."""
_KINDS = {404: "not-found", 405: "method-not-allowed", 413: "content-too-large"}
"""What Starlette itself refuses, and the body's limit."""
_RETRY_AFTER = {429: "1", 503: "2"}


class Fault(BaseModel):
    """One thing that is wrong with a request: where, and what. What was sent is not repeated."""

    where: str
    what: str


class Problem(BaseModel):
    """What is wrong, in the form of RFC 9457.

    `type` names the kind of problem and does not change; `detail` is for people. `turn_id` is the ID to
    repeat the request with, as its `Idempotency-Key`.
    """

    type: str = Field(examples=["urn:inturn:problem:mailbox-full"])
    title: str = Field(examples=["Mailbox full"])
    status: int = Field(examples=[429])
    detail: str
    turn_id: str | None = None
    errors: list[Fault] | None = None


class Refusal(Exception):
    """A request is refused; raised where that is found out, answered as a `Problem`."""

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})


def not_found(what: str) -> Refusal:
    """The answer where there is nothing, and where there is something of somebody else's."""
    return Refusal(404, "not-found", f"there is no such {what}")


class ProblemResponse(Response):
    """A `Problem`, and a line in the log."""

    media_type = "application/problem+json"

    def __init__(
        self, request: Request, status: int, kind: str, detail: str, headers: Mapping[str, str], **more: Any
    ) -> None:
        level = log.warning if status >= 500 else log.info
        level("request refused", status=status, problem=kind)
        request.app.state.metrics.refused.labels(kind).inc()
        problem = Problem(
            type=f"urn:inturn:problem:{kind}",
            title=kind.replace("-", " ").capitalize(),
            status=status,
            detail=detail,
            **more,
        )
        # Escaped, for a name that was sent may hold what UTF-8 cannot.
        content = json.dumps(problem.model_dump(exclude_none=True))
        super().__init__(content, status, {**headers})
        self.problem = problem


def answer_problems(app: FastAPI) -> None:
    """Have every error answered as a `Problem`."""
    app.add_exception_handler(Refusal, _refusal)
    app.add_exception_handler(InturnError, _library_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)


async def problem_of(request: Request, error: Exception) -> ProblemResponse:
    """The answer to any error, for who would show it in a form of their own."""
    if isinstance(error, Refusal):
        return await _refusal(request, error)
    if isinstance(error, InturnError):
        return await _library_error(request, error)
    if isinstance(error, RequestValidationError):
        return await _invalid_request(request, error)
    if isinstance(error, HTTPException):
        return await _http_error(request, error)
    return unexpected(request, error)


def unexpected(request: Request, error: Exception) -> ProblemResponse:
    """The answer to an error that nobody has thought of.

    Its message stays out of the log, for it may quote the user; its class and the lines of code are there.
    """
    stack = "".join(traceback.format_tb(error.__traceback__))
    log.error("request failed", error=type(error).__name__, stack=stack)
    return ProblemResponse(request, 500, "internal-error", "an error of the server's own; its log has it", {})


async def _refusal(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, Refusal)
    return ProblemResponse(request, error.status, error.kind, error.detail, error.headers)


async def _library_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, InturnError)
    fallback = 503 if error.retryable else 500
    status = next((code for kind, code in _CODES.items() if isinstance(error, kind)), fallback)
    if status == 500:
        return unexpected(request, error)
    headers = {"Retry-After": _RETRY_AFTER[status]} if status in _RETRY_AFTER else {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    turn_id = getattr(error, "turn_id", None)
    return ProblemResponse(request, status, kind_of(error), str(error), headers, turn_id=turn_id)


async def _invalid_request(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return ProblemResponse(request, 400, "malformed-body", "the body is not JSON", {})
    if any(fault["loc"] == ("body",) for fault in faults) and not _is_json(request):
        return ProblemResponse(
            request, 415, "unsupported-media-type", "send JSON, with Content-Type: application/json", {}
        )
    errors = [Fault(where=_place(fault["loc"]), what=_words(fault)) for fault in faults]
    detail = "; ".join(f"{fault.where}: {fault.what}" for fault in errors[:5])
    return ProblemResponse(request, 422, "invalid-input", detail, {}, errors=errors[:20])


async def _http_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    kind = _KINDS.get(error.status_code, f"http-{error.status_code}")
    return ProblemResponse(request, error.status_code, kind, str(error.detail), error.headers or {})


def kind_of(error: InturnError) -> str:
    """The last part of a problem's `type`: `mailbox-full` of `MailboxFullError`."""
    words = re.findall(r"[A-Z][a-z]+", type(error).__name__.removesuffix("Error"))
    return "-".join(words).lower()


def _is_json(request: Request) -> bool:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return content_type == "application/json" or content_type.endswith("+json")


def _place(loc: Sequence[int | str]) -> str:
    # The name of an unknown field is the sender's text.
    return ".".join(
        str(part) if isinstance(part, int) or re.fullmatch(r"[\w-]{1,40}", part, re.A) else "?"
        for part in loc
    )


def _words(fault: Mapping[str, Any]) -> str:
    return str(fault["msg"]).removeprefix("Value error, ")
