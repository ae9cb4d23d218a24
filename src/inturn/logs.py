"""Logs: structured, in one format for all processes, to be followed by session and turn."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from inturn.settings import Settings
from inturn.tracing import trace_ids
from inturn.values import printable


def configure_logging(settings: Settings) -> None:
    """Send all logs, ours and those of the libraries, to standard error in one format.

    `INTURN_LOG_FORMAT` chooses `console` or `json`; `INTURN_LOG_LEVEL` the level.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        _quiet,
    ]
    structlog.configure(
        # What the level leaves out is left out before anything is done for it.
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    as_json = settings.log_format == "json"
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=_write_traceback
        )
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([_tracebacks] if as_json else [_escape]),
            render,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # Celery logs two lines for each task at INFO, and a task is a wake-up here, not a turn; the pool of
    # connections logs each time one is borrowed.
    for noisy in ("celery.app.trace", "celery.worker.strategy", "psycopg.pool"):
        logging.getLogger(noisy).setLevel(max(root.level, logging.WARNING))
    # At DEBUG they show whole messages, and one sent without this library holds the user's words.
    for talkative in ("celery.pool", "celery.worker.consumer", "kombu", "amqp"):
        logging.getLogger(talkative).setLevel(max(root.level, logging.INFO))


# Tracebacks without the values of variables: these are what people say.
_tracebacks = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def _escape(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No value begins a line, or tells a terminal what to do; JSON sees to that by itself."""
    return {
        key: printable(value) if isinstance(value, str) and key != "stack" else value
        for key, value in event.items()
    }


def _write_traceback(target: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Each line is set in, so that what an error says begins no line that looks like one of the log's own."""
    whole = io.StringIO()
    structlog.dev.plain_traceback(whole, exc_info)
    for line in printable(whole.getvalue(), lines=True).rstrip("\n").split("\n"):
        target.write(f"\n    {line}")


def _add_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """By these IDs the lines of a trace are found, and from a line its trace."""
    event.update(trace_ids())
    return event


def _quiet(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: value for key, value in event.items() if value is not None}
