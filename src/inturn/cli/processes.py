"""Fleet: the processes that `inturn dev` and `inturn demo` run, with their output and an orderly end."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import inturn
from inturn.embedded.tether import tethered
from inturn.errors import ConfigurationError

Show = Callable[[str, str], None]
"""Takes the name of a process and one line of its output."""


class Fleet:
    """Processes with names. On leaving the block they are asked to end, last started first.

    `SIGTERM` is a warm shutdown for a worker: it finishes the turns in hand. Who is still there after
    `patience` seconds is killed. If this process dies, they get `SIGTERM` too (on Linux).
    """

    def __init__(self, env: Mapping[str, str], show: Show, *, patience: float = 30.0) -> None:
        root = _repository()
        self._env = {**os.environ, **env, "PYTHONUNBUFFERED": "1"}
        if root is not None:
            paths = [str(root), *filter(None, [self._env.get("PYTHONPATH")])]
            self._env["PYTHONPATH"] = os.pathsep.join(paths)
        self._show = show
        self._patience = patience
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []

    def start(self, name: str, *command: str, env: Mapping[str, str] | None = None) -> int:
        """Start `python -m command...` and return its process ID; only the main thread may.

        `env` is added to what all of them are told.
        """
        process = subprocess.Popen(
            tethered([sys.executable, "-m", *command]),
            env={**self._env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C is for this process alone: it then stops the others in order.
            start_new_session=True,
        )
        self._processes[name] = process
        reader = threading.Thread(target=self._read, args=(name, process), daemon=True)
        reader.start()
        self._readers.append(reader)
        return process.pid

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process and all its children."""
        os.killpg(self._processes[name].pid, number)

    def ended(self) -> dict[str, int]:
        """The processes that have ended, with their exit codes."""
        codes = {name: process.poll() for name, process in self._processes.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def stop(self) -> None:
        """End all processes; safe to repeat."""
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._patience
        try:
            for process in self._processes.values():
                process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for name, process in self._processes.items():
                if process.poll() is None:
                    self.signal(name, signal.SIGKILL)
                    process.wait()
        for reader in self._readers:
            reader.join(timeout=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._show(name, line.rstrip())


def worker_command(name: str, concurrency: int, queues: Sequence[str] = ()) -> list[str]:
    """The arguments that run a worker of these queues; without any, of all."""
    return [
        *("celery", "--quiet", "-A", application("worker"), "worker", "-n", f"{name}@%h", "-E"),
        *("-P", "threads", "-c", str(concurrency), "--without-gossip", "--without-mingle"),
        *(("-Q", ",".join(queues)) if queues else ()),
    ]


def beat_command(schedule: Path) -> list[str]:
    """The arguments that run beat."""
    return ["celery", "--quiet", "-A", application("worker"), "beat", "-s", str(schedule)]


def web_command(port: int) -> list[str]:
    """The arguments that run the web application."""
    served = f"{application('producer')}.web:app"
    return ["uvicorn", served, "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]


def application(name: str) -> str:
    """The module of `worker` or `producer`."""
    # Installed from a wheel the applications are inside the package; in a checkout beside it.
    return f"inturn.{name}" if importlib.util.find_spec(f"inturn.{name}") else name


def _repository() -> Path | None:
    if importlib.util.find_spec("inturn.worker"):
        return None
    root = Path(inturn.__file__).resolve().parents[2]
    if not (root / "worker" / "celery.py").is_file():
        raise ConfigurationError(
            "the worker is neither installed (inturn.worker) nor beside the library; "
            "run this in a checkout of inturn, or install its wheel"
        )
    return root
