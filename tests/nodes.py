"""pytest-celery's nodes, backed by processes instead of Docker containers.

The plugin's own nodes, clusters and setup work unchanged: they ask a container for the few things below.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_celery import CeleryWorkerContainer, RedisContainer

from inturn.embedded.tether import tethered
from inturn.embedded.valkey import EmbeddedValkey
from tests.forks import NURSERY, Fork, import_path
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent

# What `docker kill` and `docker pause` do to every process of a container; other signals go to the first one.
_TO_ALL = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT}


class ProcessContainer:
    """One process (with its children) in the shape of docker-py's `Container`, as far as the plugin needs.

    `%h` in `command` becomes the container's host name. `start` returns once `prompt` is in the log.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        directory: Path,
        prompt: str,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.name = f"{name}-{self.id[:6]}"
        self.command = [word.replace("%h", self.id[:12]) for word in command]
        self.directory = directory
        self.env = dict(env or {})
        self.prompt = prompt
        self.log_file = directory / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | Fork | None = None
        self.attrs: dict[str, Any] = {
            "Config": {
                "Hostname": f"127.0.0.1:{port}" if port else self.id[:12],
                "Env": [f"{key}={value}" for key, value in self.env.items()],
            },
            # Nothing to wait for, says the plugin, where these are empty.
            "NetworkSettings": {"Networks": {}, "Ports": {}},
            "HostConfig": {"PortBindings": {}},
        }

    @property
    def status(self) -> str:
        """As Docker says it: a paused process is "running" too."""
        return "running" if self._process is not None and self._process.poll() is None else "exited"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            said_before = log.tell()
            if NURSERY.can_start(self.command, self.env):
                self._process = NURSERY.start(
                    self.command, cwd=self.directory, env=self.env, log=self.log_file
                )
            else:
                self._process = subprocess.Popen(
                    tethered(self.command, on_death=signal.SIGKILL),
                    cwd=self.directory,
                    env=self.env or None,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

        def started_or_ended() -> bool:
            return self.prompt.encode() in self.logs()[said_before:] or self.status == "exited"

        wait_until(started_or_ended, timeout=60, what=f"{self.prompt!r} in {self.log_file}")
        if self.status == "exited":
            raise AssertionError(f"{self.name} ended at once:\n{self.tail()}")

    def reload(self) -> None:
        """Nothing to fetch: the state is asked of the process itself."""

    def logs(self) -> bytes:
        """All that it and the boots before it have said."""
        return self.log_file.read_bytes() if self.log_file.exists() else b""

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.logs().decode(errors="replace").splitlines()[-lines:])

    def exec_run(self, command: str | Sequence[str]) -> tuple[int, bytes]:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        done = subprocess.run(
            words, cwd=self.directory, env=self.env or None, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return done.returncode, done.stdout

    def kill(self, signal: str | int | None = None) -> None:
        assert self._process is not None
        number = _signal(signal)
        if number in _TO_ALL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        if number == _signal("SIGKILL"):
            self._process.wait()

    def restart(self, timeout: float = 10) -> None:
        """A warm stop, the hard way after `timeout` seconds, and a new start."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.remove()
        self.start()

    def remove(self) -> None:
        """End it with all its children, at once."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _signal(which: str | int | None) -> signal.Signals:
    if which is None:
        return signal.SIGKILL
    return signal.Signals[which] if isinstance(which, str) else signal.Signals(which)


class LocalRedis(RedisContainer):  # type: ignore[misc]  # pytest-celery has no types
    """The plugin's Redis on any port: it takes 6379 inside a container for granted."""

    @property
    def port(self) -> int:
        return int(self.hostname.rpartition(":")[2])

    @property
    def host_url(self) -> str:
        return str(self.url)


class InturnWorker(CeleryWorkerContainer):  # type: ignore[misc]
    """The plugin's worker, running the `worker` folder of this repository."""

    @classmethod
    def worker_name(cls) -> str:
        return "worker"

    @property
    def pid(self) -> int:
        return int(self._container.pid)


def redis_container(directory: Path) -> ProcessContainer:
    """A Valkey that keeps its data over a crash, as the plugin's nodes want it; not started yet."""
    server = EmbeddedValkey(directory)
    return ProcessContainer(
        "valkey", server.command, directory=directory, prompt="Ready to accept connections", port=server.port
    )


def worker_container(
    directory: Path,
    env: Mapping[str, str],
    *,
    pool: str = "threads",
    concurrency: int = 8,
    app: str = "worker",
    python: str = sys.executable,
) -> ProcessContainer:
    """A Celery worker started as the Procfile starts it; not started yet."""
    command = [python, "-m", "celery", "-A", app, "worker", "--loglevel", "INFO"]
    command += ["--pool", pool, "--concurrency", str(concurrency)]
    command += [
        "--task-events",
        "--without-gossip",
        "--without-mingle",
        "--hostname",
        f"{InturnWorker.worker_name()}@%h",
    ]
    return ProcessContainer(
        "worker", command, directory=directory, prompt="ready.", env={**clean_environment(), **env}
    )


def clean_environment() -> dict[str, str]:
    """Ours, less what would configure inturn, and with both source trees to import from."""
    ours = ("INTURN_", "CELERY_", "OPENAI_", "REDIS_URL", "DATABASE_URL", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    bin_directory = str(Path(sys.executable).parent)
    return {
        **env,
        "PATH": os.pathsep.join([bin_directory, env.get("PATH", os.defpath)]),
        "PYTHONPATH": import_path(),
        "PYTHONUNBUFFERED": "1",
    }
