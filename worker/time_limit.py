"""TimeLimit: a try of a turn that takes too long is left to itself, and its slot goes on.

Celery's own time limits do nothing on threads, and on gevent they cannot be caught. So a try runs in a thread
of its own (a greenlet, on gevent), and whoever drives the session waits for it, but no longer than the limit.
Whatever the try hangs in, a sleep, a loop, a socket that never answers, no slot and no session waits for it.

What is left behind is as harmless as a worker that was paused past its lease: it may commit the turn late,
if nobody else has taken it until then, and is refused otherwise. It is asked to end, at the next call of the
model or by an exception, which reaches Python code but nothing that waits outside of it.
"""

from __future__ import annotations

import contextvars
import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

import structlog

from inturn.errors import TurnTimeLimitError

T = TypeVar("T")

log = structlog.get_logger(__name__)

MOST_LEFT = 64
"""Tries that are left behind and still run, after which a process asks for its own warm shutdown."""
ASK_EVERY = 1.0
"""Seconds between two attempts to end what is left behind."""

_HANDS_OFF = ("logging", "inturn.persistence", "inturn.turns", "psycopg", "redis")
"""Modules that hold locks and pooled connections: what is at work in them is not interrupted."""


class Abandoned(BaseException):
    """Ends a try that nobody waits for any more; no `except Exception` takes it for a failure."""


class TimeLimit:
    """Runs functions for at most `seconds` each; 0: for as long as they take.

    `overflow` is called once there are more than `most_left` that were left to themselves and still run: they
    cost memory, and perhaps a processor, until the process ends.
    """

    def __init__(
        self, seconds: float, *, most_left: int = MOST_LEFT, overflow: Callable[[], None] | None = None
    ) -> None:
        self._seconds = seconds
        self._most_left = most_left
        self._overflow = overflow or _ask_for_shutdown
        self._idle: list[_Helper] = []
        self._left: set[_Try[Any]] = set()
        self._lock = threading.Lock()
        self._ending = False

    @property
    def left(self) -> int:
        """How many were left to themselves and still run."""
        with self._lock:
            return len(self._left)

    def run(self, function: Callable[[], T]) -> T:
        """Call it, and give what it gives. Raises what it raises, and `TurnTimeLimitError`."""
        if not self._seconds:
            return function()
        attempt = _Try(function)
        try:
            helper = self._idle.pop()
        except IndexError:
            helper = _Helper(self)
        helper.take(attempt)
        try:
            in_time = attempt.ended.wait(self._seconds)
        except BaseException:
            self._leave(attempt)  # this process is told to end, and does not wait
            raise
        if not in_time and self._leave(attempt):
            raise TurnTimeLimitError(self._seconds)
        attempt.ended.wait()
        return attempt.result()

    def release(self, helper: _Helper) -> None:
        """Take back a helper that has nothing to do."""
        self._idle.append(helper)

    def _leave(self, attempt: _Try[T]) -> bool:
        """Leave a try to itself; False if it has just ended."""
        if not attempt.settle():
            return False
        attempt.abandoned.set()
        with self._lock:
            self._left.add(attempt)
            left, begin, self._ending = len(self._left), not self._ending, True
        log.error("turn left to itself: it takes too long", left=left, at=attempt.where())
        if begin:
            threading.Thread(target=self._end, name="inturn-time-limit", daemon=True).start()
        return True

    def _end(self) -> None:
        """Ask what is left to end, until nothing is left."""
        pause, told = threading.Event(), False
        while True:
            with self._lock:
                self._left = left = {attempt for attempt in self._left if attempt.ask_to_end()}
                if not left:
                    self._ending = False
                    return
            if len(left) > self._most_left and not told:
                told = True
                log.critical("too much hangs in this process", left=len(left))
                self._overflow()
            pause.wait(ASK_EVERY)


def check_abandoned() -> None:
    """Raise `Abandoned` if nobody waits any more for what is being done here."""
    abandoned = _abandoned.get()
    if abandoned is not None and abandoned.is_set():
        raise Abandoned


_abandoned: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("abandoned", default=None)


class _Try(Generic[T]):
    """One call: either it ends or it is left to itself, whichever is first to `settle`."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.context = contextvars.copy_context()  # logs know the session and the turn by it
        self.ended = threading.Event()
        self.abandoned = threading.Event()
        self._settled = threading.Lock()
        self._asking = threading.Lock()
        self._over = False
        self._value: T
        self._error: BaseException | None = None
        self._thread: int = 0
        self._greenlet: Any = None

    def settle(self) -> bool:
        """Whether the caller was the first to settle how this goes out; it is free for one only."""
        return self._settled.acquire(blocking=False)

    def work(self) -> bool:
        """Do it; False if nobody waits for it any more."""
        try:
            self._thread, self._greenlet = threading.get_ident(), _current_greenlet()
            _abandoned.set(self.abandoned)
            self._value = self.function()
        except BaseException as error:
            self._error = error
        return self.settle()

    def finish(self) -> None:
        """Note that its thread has nothing more to do with it: after this it is not interrupted."""
        with self._asking:
            self._over = True

    def result(self) -> T:
        """What it came to."""
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            self._error = None  # it holds the frames that hold this

    def where(self) -> str:
        """The innermost lines it is at: no values, for those may be a user's words."""
        return " < ".join(line for _, line in islice(self._places(), 4))

    def ask_to_end(self) -> bool:
        """Raise `Abandoned` in it, where that does no harm; False if it has ended.

        What waits outside of Python gets it when it is back, if ever.
        """
        with self._asking:
            if self._over:
                return False
            modules = [module for module, _ in self._places()]
            if not modules or any(module.startswith(_HANDS_OFF) for module in modules):
                return True
            if self._greenlet is not None:
                self._greenlet.kill(Abandoned, block=False)
            else:
                thread, error = ctypes.c_ulong(self._thread), ctypes.py_object(Abandoned)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)
            return True

    def _places(self) -> Iterator[tuple[str, str]]:
        """Where it is, innermost first: module, and line with function."""
        frame = self._greenlet.gr_frame if self._greenlet else sys._current_frames().get(self._thread)
        while frame is not None and frame.f_code is not _Try.work.__code__:
            module = str(frame.f_globals.get("__name__"))
            yield module, f"{module}:{frame.f_lineno} {frame.f_code.co_name}"
            frame = frame.f_back


class _Helper:
    """A thread that works on one try after another, until one of them is left to itself: then it ends."""

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self._tries: queue.SimpleQueue[_Try[Any]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="inturn-turn", daemon=True).start()

    def take(self, attempt: _Try[Any]) -> None:
        """Work on this one next."""
        self._tries.put(attempt)

    def _run(self) -> None:
        while True:
            attempt = self._tries.get()
            try:
                if not attempt.context.run(attempt.work):
                    return
            except Abandoned:
                return  # it came when there was nothing more to end
            finally:
                attempt.finish()
            self._limit.release(self)
            attempt.ended.set()
            del attempt  # an idle thread must not keep a turn's objects alive


def _current_greenlet() -> Any:
    """The greenlet that runs this, where threads are greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return None
    return sys.modules["gevent"].getcurrent()


def _ask_for_shutdown() -> None:
    # Its slots are free, so a warm shutdown finishes what is in hand. Its supervisor starts it anew.
    os.kill(os.getpid(), signal.SIGTERM)
