"""The web application: `uvicorn producer.web:app`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from types import FrameType

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import Receive, Scope, Send

from inturn.audit import set_actor
from inturn.channels import list_channels
from inturn.logs import configure_logging
from inturn.settings import Settings, load_settings

from . import channels, chat, events, sessions, turns, users
from .auth import Credentials
from .console import routes as console
from .descriptions import DESCRIPTION, describe
from .edge import Edge
from .limits import BodyLimit, most_bytes
from .metrics import Metrics
from .problems import Refusal, answer_problems
from .runtime import Runtime, Web
from .teller import Teller
from .watcher import Watcher

log = structlog.get_logger(__name__)

_ALLOWED_HEADERS = ("Authorization", "Idempotency-Key", "Last-Event-ID", "Prefer")
_EXPOSED_HEADERS = ("Location", "Preference-Applied", "Retry-After")


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the application; without `settings` the environment's."""
    settings = load_settings() if settings is None else settings
    app = FastAPI(
        title="inturn",
        summary="Enqueue turns of chat agents and read their replies.",
        description=DESCRIPTION,
        version=version("inturn"),
        lifespan=_lifespan,
        redirect_slashes=False,
        # Its spans hold what follows a path, which may be a ticket, and its logs what errors say; see Edge.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.settings = settings
    app.state.metrics = metrics = Metrics()
    for part in (turns, events, sessions, users, chat, channels):
        app.include_router(part.router)
    if settings.console_users is not None:
        app.include_router(console.router)
    _add_checks(app)
    answer_problems(app)
    describe(app)
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, most=most_bytes(settings))
    if origins := [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]:
        app.add_middleware(
            _Cors,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=_ALLOWED_HEADERS,
            expose_headers=_EXPOSED_HEADERS,
        )
    app.add_middleware(Edge, metrics=metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    configure_logging(settings)
    set_actor("web")
    runtime = Runtime(settings, app.state.metrics)
    app.state.runtime = runtime
    app.state.client = runtime.client
    app.state.teller = Teller()
    watching = asyncio.create_task(runtime.watcher.run())
    try:
        with _letting_go(runtime.watcher), _short_access_log():
            api = "closed" if runtime.gate.is_closed else "this machine only"
            log.info("web ready", api=api, channels=list_channels(runtime.channels))
            yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        runtime.close()


class _Cors(CORSMiddleware):
    """For the API: the console is for its own pages alone, whatever other sites may use."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and console.is_ours(scope):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _add_checks(app: FastAPI) -> None:
    @app.get("/healthz", tags=["process"])
    async def healthz() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["process"])
    def readyz(web: Web) -> dict[str, str | dict[str, str]]:
        """Whether a turn could be accepted now, and which channels are set up; 503 if Redis is away."""
        web.client.ping()
        return {"status": "ok", "channels": list_channels(web.channels)}

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request, web: Web, credentials: Credentials) -> Response:
        """The figures of this process, for Prometheus: from this machine, or with an API key."""
        key = None if credentials is None else credentials.credentials
        if not web.gate.admits_to_metrics(request, key):
            raise Refusal(403, "not-for-you", "metrics are for this machine, or for an API key")
        return Response(web.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@contextmanager
def _letting_go(watcher: Watcher) -> Iterator[None]:
    """Let readers go as soon as the server is told to stop: it waits for them before it tells us."""
    loop = asyncio.get_running_loop()
    before: dict[int, Callable[[int, FrameType | None], object]] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if not callable(handler):
            continue

        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(watcher.close)
            before[number](number, frame)

        with contextlib.suppress(ValueError):  # not in the main thread, where nobody gets signals
            signal.signal(number, handle)
            before[number] = handler
    try:
        yield
    finally:
        watcher.close()
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _short_access_log() -> Iterator[None]:
    """Keep what follows a path out of uvicorn's access log: it may hold a ticket."""

    def shorten(record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, *rest = record.args
            record.args = (client, method, str(path).partition("?")[0], *rest)
        return True

    logger = logging.getLogger("uvicorn.access")
    logger.addFilter(shorten)
    try:
        yield
    finally:
        logger.removeFilter(shorten)


app = create_app()
