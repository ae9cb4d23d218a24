"""The web application: what may be asked over HTTP, and what is answered when something is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from inturn.client import Client
from inturn.errors import InturnError, InvalidInputError, MailboxFullError, MailboxUnavailableError
from inturn.logs import configure_logging
from inturn.settings import load_settings

from . import turns

log = structlog.get_logger(__name__)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = load_settings()
    configure_logging(settings)
    with Client(settings) as client:
        app.state.client = client
        log.info("web ready", api="on", slack="not yet", sms="not yet")
        yield


app = FastAPI(
    title="inturn",
    summary="Enqueue turns of chat agents and read their replies.",
    lifespan=_lifespan,
)
app.include_router(turns.router)


@app.get("/healthz")
def healthz() -> dict[str, str]:
    """Whether this process answers."""
    return {"status": "ok"}


@app.get("/readyz")
def readyz(request: Request) -> dict[str, str]:
    """Whether a turn could be accepted now; 503 if Redis is away."""
    request.app.state.client.ping()
    return {"status": "ok"}


@app.exception_handler(InturnError)
async def _explain(_: Request, error: InturnError) -> JSONResponse:
    headers = {}
    match error:
        case InvalidInputError():
            code = 422
        case MailboxFullError():
            code, headers = 429, {"Retry-After": "1"}
        case MailboxUnavailableError():
            code, headers = 503, {"Retry-After": "2"}
        case _:
            code = 500
    log.warning("request refused", code=code, error=type(error).__name__)
    body = {"error": type(error).__name__, "detail": str(error), "turn_id": getattr(error, "turn_id", None)}
    return JSONResponse({key: value for key, value in body.items() if value}, code, headers)
