"""Servers of a benchmark's own, and worker processes on them at default settings."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from inturn.embedded.postgres import EmbeddedPostgres
from inturn.embedded.valkey import EmbeddedValkey
from inturn.settings import Settings, load_settings
from tests.nodes import ProcessContainer, clean_environment, worker_container


class Call(NamedTuple):
    """One call of the model, `at` on the machine's wall clock."""

    session_id: str
    pid: int
    at: float


class Fleet:
    """A Valkey, the database at `database_url`, and workers; these run the app of `benchmarks.crashing`."""

    def __init__(
        self, directory: Path, database_url: str, *, inbox: Literal["redis", "database"] = "redis"
    ) -> None:
        self.directory = directory
        self.database_url = database_url
        self.inbox = inbox
        self.valkey = EmbeddedValkey(directory / "valkey")
        self.journal = directory / "journal.jsonl"
        self.crash_file = directory / "crashed"
        self.workers: list[ProcessContainer] = []

    @property
    def env(self) -> dict[str, str]:
        """What configures the workers: where the servers are, and which agent; all else is default."""
        return {
            **clean_environment(),
            "REDIS_URL": self.valkey.url,
            "DATABASE_URL": self.database_url,
            "INTURN_AGENT": "benchmarks.crashing:agent",
            "INTURN_INBOX": self.inbox,
            "BENCH_JOURNAL": str(self.journal),
            "BENCH_CRASH_FILE": str(self.crash_file),
        }

    @property
    def settings(self) -> Settings:
        """The same for this process."""
        return load_settings(redis_url=self.valkey.url, database_url=self.database_url, inbox=self.inbox)

    def start_worker(
        self, *, pool: str = "threads", concurrency: int = 4, ready: bool = True, **env: str
    ) -> ProcessContainer:
        """Start one more worker, and wait until it takes messages, unless it is not to be `ready`."""
        worker = worker_container(
            self.directory,
            {**self.env, **env},
            pool=pool,
            concurrency=concurrency,
            app="benchmarks.crashing",
        )
        if not ready:
            worker.prompt = ""
        self.workers.append(worker)
        worker.start()
        return worker

    def calls(self) -> list[Call]:
        """All calls of the model so far, in order."""
        if not self.journal.exists():
            return []
        calls = [Call(*json.loads(line)) for line in self.journal.read_text().splitlines()]
        return sorted(calls, key=lambda call: call.at)

    def crashed(self) -> tuple[float, int] | None:
        """When the worker died that was to die (wall clock), and its process; None: it lives."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            at, pid = self.crash_file.read_text().split()
            return float(at), int(pid)
        return None

    def close(self) -> None:
        """End all of it."""
        for worker in self.workers:
            worker.remove()
        self.valkey.kill()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that goes, in memory where there is such a place; open to the user PostgreSQL runs as."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="inturn-benchmark-", dir=memory) as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


@contextmanager
def fleet() -> Iterator[Fleet]:
    """A fleet without workers, on a Valkey and a PostgreSQL of its own."""
    with ExitStack() as stack:
        directory = stack.enter_context(scratch())
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres", fsync=False))
        made = Fleet(directory, postgres.url)
        stack.callback(made.close)
        made.valkey.start()
        yield made


def now() -> float:
    """The wall clock: all processes of a benchmark are on one machine."""
    return time.time()
