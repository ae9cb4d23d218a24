"""The audit log: who read, changed, exported or erased which session, and when; never what was in it.

Here is the actor, on whose behalf the code that runs now works. `log` writes the log, `reading` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

_actor: ContextVar[str | None] = ContextVar("inturn_actor", default=None)
_exporting: ContextVar[bool] = ContextVar("inturn_exporting", default=False)
_of_process = "process"


def set_actor(name: str) -> None:
    """Name who acts in this process where nobody else is named, such as `worker:node-1` or `cli:ann`."""
    global _of_process
    _of_process = name


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Name who acts while the block runs, in this thread or task: `user:ann`, `key:backend`, `channel:sms`.

    Threads and tasks that are given a copy of the context act for the same.
    """
    token = _actor.set(name)
    try:
        yield
    finally:
        _actor.reset(token)


def act_as(name: str) -> None:
    """Name who acts from here on, to the end of this task; for a request, which is a task of its own."""
    _actor.set(name)


@contextmanager
def exporting() -> Iterator[None]:
    """Have what is read while the block runs recorded as exported: it is about to leave the store."""
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)


def current_actor() -> str:
    """Who acts now."""
    return _actor.get() or _of_process


def kind_of_read() -> Literal["read", "export"]:
    """What a read is now: `read`, or `export`."""
    return "export" if _exporting.get() else "read"
