"""Fleet: the processes of a run, started through the nursery, and started again when they end."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from inturn.embedded.tether import tethered
from tests.nodes import ROOT, clean_environment

START_SECONDS = 120.0
AS_ASKED = (0, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGQUIT)
HEAVY = (
    *("celery.bin.celery", "celery.apps.worker", "celery.apps.beat", "celery.concurrency.thread"),
    *("celery.worker.consumer", "celery.app.amqp", "celery.backends.redis", "kombu.transport.redis"),
    *("redis", "psycopg", "psycopg_pool", "inturn.client", "inturn.agent", "inturn.persistence.postgresql"),
    *("inturn.turns", "inturn.channels", "inturn.logs", "structlog", "http.client", "http.server"),
    *("inturn.persistence.manager", "inturn.persistence.inbox", "sqlalchemy.orm", "alembic.command"),
    *("tests.channels", "tests.faults.load"),
)
"""What is imported once for all."""
MOST_FAILURES = 10
"""Ends of one place in a row that nobody asked for."""


@dataclass(slots=True)
class Process:
    """One place in the fleet, and who holds it now."""

    name: str
    argv: Sequence[str]
    env: dict[str, str]
    pid: int | None = None
    starting: bool = False
    ready: bool = False
    """It has said that it works; asked of workers only."""
    paused: bool = False
    finished: bool = False
    """It has ended by itself and well: it is not started again."""
    once: bool = False
    """It may end well by itself."""
    restarts: int = -1
    began: float = 0.0
    failures: int = 0

    @property
    def up(self) -> bool:
        """Whether it is at work."""
        return self.pid is not None and self.ready and not self.paused


class Fleet:
    """Processes by name. `on_end` is told of each that has ended: place, process ID, exit code."""

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self.processes: dict[str, Process] = {}
        self.on_end: Callable[[Process, int, int], None] = lambda process, pid, code: None
        self._directory = directory
        self._source = directory / "source"
        paths = [str(self._source), str(self._source / "src")]
        self._environment = {**clean_environment(), "PYTHONPATH": os.pathsep.join(paths), **env}
        self._nursery: subprocess.Popen[bytes] | None = None
        self._selector = selectors.DefaultSelector()
        self._rest = b""
        self.stopping = False

    def open(self) -> None:
        """Start the nursery, and wait until it is ready.

        It and its children run a copy of the source: what is edited meanwhile must not meet what it has
        imported before.
        """
        for name in ("src/inturn", "worker", "tests"):
            ignored = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(ROOT / name, self._source / name, ignore=ignored)
        with (self._directory / "nursery.log").open("ab") as log:
            self._nursery = subprocess.Popen(
                tethered([sys.executable, "-m", "tests.nursery", *HEAVY], on_death=signal.SIGKILL),
                env=self._environment,
                cwd=self._source,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._selector.register(self._output, selectors.EVENT_READ)
        deadline = time.monotonic() + START_SECONDS
        while ["ready"] not in self._events(1.0):
            if self._nursery.poll() is not None or time.monotonic() > deadline:
                said = (self._directory / "nursery.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the nursery did not start:\n{said}")

    def add(self, name: str, argv: Sequence[str], env: Mapping[str, str], *, once: bool = False) -> Process:
        """Take a process in; `look` starts it."""
        self.processes[name] = Process(name, argv, dict(env), once=once)
        return self.processes[name]

    def look(self, wait: float) -> None:
        """Take note of what happened, for at most `wait` seconds, and start what is not there."""
        for event in self._events(wait):
            if event[0] == "started":
                process = self.processes[event[1]]
                process.pid, process.starting, process.began = event[2], False, time.monotonic()
                process.restarts += 1
            elif event[0] == "ended":
                self._ended(event[1], event[2])
        for process in self.processes.values():
            if process.pid is None and not (process.starting or process.finished or self.stopping):
                process.starting = True
                log = str(self._directory / f"{process.name}.log")
                env = {**self._environment, **process.env}
                self._order(name=process.name, argv=process.argv, cwd=str(self._source), env=env, log=log)

    def named(self, prefix: str) -> list[Process]:
        """The places whose name begins so."""
        return [process for name, process in self.processes.items() if name.startswith(prefix)]

    def signal(self, process: Process, number: signal.Signals) -> bool:
        """Send it; False if it is gone already."""
        if process.pid is None:
            return False
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return False
        if number in (signal.SIGSTOP, signal.SIGCONT):
            process.paused = number == signal.SIGSTOP
        return True

    def close(self) -> None:
        """End everything, at once."""
        self.stopping = True
        for process in self.processes.values():
            if process.pid is not None:
                self.signal(process, signal.SIGKILL)
        if self._nursery is not None:
            assert self._nursery.stdin is not None
            with contextlib.suppress(OSError):
                self._nursery.stdin.close()
            try:
                self._nursery.wait(10)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
            self._output.close()
        self._selector.close()

    @property
    def _output(self) -> IO[bytes]:
        assert self._nursery is not None
        assert self._nursery.stdout is not None
        return self._nursery.stdout

    def _order(self, **order: Any) -> None:
        assert self._nursery is not None
        assert self._nursery.stdin is not None
        self._nursery.stdin.write((json.dumps(order) + "\n").encode())
        self._nursery.stdin.flush()

    def _events(self, wait: float) -> list[list[Any]]:
        if not self._selector.select(wait):
            return []
        said = os.read(self._output.fileno(), 65_536)
        if not said and not self.stopping:
            raise RuntimeError("the nursery has ended: " + str(self._directory / "nursery.log"))
        *lines, self._rest = (self._rest + said).split(b"\n")
        return [json.loads(line) for line in lines]

    def _ended(self, pid: int, code: int) -> None:
        for process in self.processes.values():
            if process.pid == pid:
                process.pid, process.ready, process.paused = None, False, False
                process.failures = 0 if code in AS_ASKED else process.failures + 1
                if process.failures > MOST_FAILURES:
                    raise RuntimeError(f"{process.name} does not start: {self._directory}/{process.name}.log")
                process.finished = process.once and code == 0
                self.on_end(process, pid, code)
