"""timed: what persistence takes is counted and traced, and what takes long says so in the log."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import structlog

from inturn.metrics import count_operation
from inturn.tracing import detail

P = ParamSpec("P")
R = TypeVar("R")

SLOW_MS = 1000.0
"""An operation that takes longer is logged as a warning, and counted as slow."""

_log = structlog.get_logger(__name__)


def timed(operation: Callable[P, R]) -> Callable[P, R]:
    """Count and trace each call; log a warning `slow persistence` with `operation`, `session_id` and `ms`.

    The session is the argument `session_id`, or that of the argument `session`; None without either. A call
    that raises is timed like one that returns.
    """

    @functools.wraps(operation)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        started = time.monotonic()
        try:
            with detail(operation.__name__):
                return operation(*args, **kwargs)
        finally:
            ms = (time.monotonic() - started) * 1000
            count_operation(operation.__name__, ms / 1000, slow=ms > SLOW_MS)
            if ms > SLOW_MS:
                given = inspect.signature(operation).bind(*args, **kwargs).arguments
                session_id = given.get("session_id") or getattr(given.get("session"), "id", None)
                _log.warning(
                    "slow persistence", operation=operation.__name__, session_id=session_id, ms=round(ms)
                )

    return wrapper
