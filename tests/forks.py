"""Processes that a nursery forks, in the shape of `subprocess.Popen` as far as tests need."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inturn.embedded.tether import tethered

ROOT = Path(__file__).parent.parent

LIBRARIES = (
    *("celery.bin.celery", "celery.apps.worker", "celery.apps.beat", "celery.concurrency.thread"),
    *("celery.concurrency.prefork", "celery.worker.consumer", "celery.app.amqp", "celery.backends.redis"),
    *("kombu.transport.redis", "redis", "psycopg", "psycopg_pool", "structlog", "pydantic_settings"),
    *("fastapi", "uvicorn", "uvicorn.protocols.http.auto", "uvicorn.loops.auto", "limits", "jwt"),
    *("yaml", "docstring_parser", "cryptography.hazmat.primitives.ciphers.aead"),
)
"""Libraries of others, and none that patches or reads the environment at import."""


class Fork:
    """One process; its end is known once `poll` or `wait` has seen it."""

    def __init__(self, nursery: Nursery, pid: int, command: Sequence[str]) -> None:
        self.pid = pid
        self.args = list(command)
        self._nursery = nursery

    def poll(self) -> int | None:
        """The exit code; None while it lives."""
        return self._nursery.code(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; `subprocess.TimeoutExpired` if that takes longer."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Send it; nothing happens if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class Nursery:
    """One nursery and its children; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._started: dict[str, int] = {}
        self._codes: dict[int, int] = {}

    def can_start(self, command: Sequence[str], env: Mapping[str, str]) -> bool:
        """Whether it would run this just as a new interpreter does."""
        return (
            sys.platform == "linux"
            and list(command[:2]) == [sys.executable, "-m"]
            and "gevent" not in command  # it patches the libraries before anything else may import them
            and env.get("PYTHONPATH") == import_path()
            # The kernel watches the thread that starts the nursery.
            and (self._process is not None or threading.current_thread() is threading.main_thread())
        )

    def start(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> Fork:
        """Run `python -m ...` with its output appended to `log`."""
        name = uuid.uuid4().hex
        order = {"name": name, "argv": command[2:], "cwd": str(cwd), "env": dict(env), "log": str(log)}
        with self._lock:
            process = self._open()
            assert process.stdin is not None
            process.stdin.write((json.dumps(order) + "\n").encode())
            process.stdin.flush()
            while name not in self._started:
                self._read()
            return Fork(self, self._started.pop(name), command)

    def code(self, pid: int) -> int | None:
        """The exit code of a child; None while it lives."""
        with self._lock:
            assert self._process is not None
            assert self._process.stdout is not None
            while pid not in self._codes and _readable(self._process.stdout.fileno()):
                self._read()
            return self._codes.get(pid)

    def _open(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            env = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("INTURN_", "CELERY_"))
            }
            self._process = subprocess.Popen(
                tethered([sys.executable, "-m", "tests.nursery", *LIBRARIES], on_death=signal.SIGKILL),
                env={**env, "PYTHONPATH": import_path()},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            atexit.register(self._process.kill)
        return self._process

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        said = os.read(self._process.stdout.fileno(), 65_536)
        if not said:
            raise RuntimeError("the nursery has ended")
        *lines, self._rest = (self._rest + said).split(b"\n")
        for event, *about in map(json.loads, lines):
            self._note(event, about)

    def _note(self, event: str, about: list[Any]) -> None:
        if event == "started":
            self._started[about[0]] = about[1]
            self._codes.pop(about[1], None)  # the number was somebody else's before
        elif event == "ended":
            self._codes[about[0]] = about[1]


NURSERY = Nursery()


def import_path() -> str:
    """What PYTHONPATH must be for a process to find both source trees."""
    return os.pathsep.join([str(ROOT), str(ROOT / "src")])


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])
