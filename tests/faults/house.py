"""House: the servers of a run, the proxy before them, and the processes that use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from inturn.client import Client
from inturn.embedded.postgres import EmbeddedPostgres
from inturn.embedded.tether import tethered
from inturn.embedded.valkey import EmbeddedValkey
from inturn.persistence import PersistenceAdapter, open_adapter
from inturn.settings import load_settings
from inturn.turns import Deliveries
from inturn.turns.connection import connect
from tests.channels import Answering, Receiver
from tests.faults.fleet import Fleet
from tests.faults.load import Load
from tests.faults.outcome import Options
from tests.nodes import ROOT, clean_environment

SHORT = {
    "INTURN_LEASE_SECONDS": "2",
    "INTURN_RENEW_SECONDS": "0.5",
    "INTURN_SWEEP_SECONDS": "0.2",
    "INTURN_GRACE_SECONDS": "3",
    "INTURN_RETRY_SECONDS": "0.2",
}
"""Times for a short run; a long one has the defaults, at which the promises are made."""


class House:
    """All of it; it is opened in the main thread, which the servers belong to."""

    def __init__(self, options: Options, load: Load, directory: Path) -> None:
        self._options = options
        self._load = load
        self._directory = directory

    def open(self, stack: ExitStack, answer: Answering) -> None:
        """Start the servers; take in all processes but the producers."""
        # With `always`, what was accepted outlives a crash of the server: see docs/durability.md.
        self.valkey = stack.enter_context(
            EmbeddedValkey(self._directory / "valkey", config={"appendfsync": "always"})
        )
        self.postgres = stack.enter_context(EmbeddedPostgres(self._directory / "postgres", fsync=False))
        ports = self._open_proxy(stack)
        self.receiver = stack.enter_context(Receiver(answer))
        env = {
            "FAULTS_DIR": str(self._directory),
            "FAULTS_RECEIVER": self.receiver.url,
            "FAULTS_MODEL_SECONDS": str(self._options.model_seconds),
            "FAULTS_BREAK": self._options.plant,
            "INTURN_AGENT": "tests.faults.agent:agent",
            "INTURN_CHANNELS": "tests.faults.agent:channel",
            "INTURN_CLEANUP_SECONDS": "15",
            "INTURN_LOG_LEVEL": os.environ.get("INTURN_LOG_LEVEL", "WARNING"),
            **(SHORT if self._options.short else {}),
        }
        self._direct = {"REDIS_URL": self.valkey.url, "DATABASE_URL": self.postgres.url}
        self._by_proxy = {
            "REDIS_URL": self.valkey.url.replace(f":{self.valkey.port}/", f":{ports['redis']}/"),
            "DATABASE_URL": self.postgres.url.replace(f":{self.postgres.port}/", f":{ports['postgres']}/"),
        }
        self.fleet = Fleet(self._directory, env)
        stack.callback(self.fleet.close)
        self.fleet.open()
        settings = load_settings(redis_url=self.valkey.url, database_url=self.postgres.url)
        self.client = stack.enter_context(Client(settings))
        redis = stack.enter_context(connect(settings))
        self.out = Deliveries(redis, settings)
        self.store: PersistenceAdapter = stack.enter_context(open_adapter(self.postgres.url))
        self.store.initialize()
        for number in range(1, self._options.workers + 1):
            # Every second one is behind the proxy; the clock of the last one steps.
            steps = number == self._options.workers and self._options.faults
            more = {"FAULTS_CLOCK": "1" if self._options.short else "10"} if steps else {}
            queues = "turns,maintenance,celery"
            self._add_worker(f"worker{number}", queues, self._options.concurrency, number % 2 == 0, **more)
        for number in (1, 2):
            self._add_worker(f"delivery{number}", "delivery", 4, number % 2 == 0)
            beat = ["celery", "-A", "worker", "beat", "-s", str(self._directory / f"beat{number}.db")]
            # Two of them, each with a file of its own: what they ask for comes twice.
            self.fleet.add(f"beat{number}", [*beat, "--pidfile="], self._direct)

    def _open_proxy(self, stack: ExitStack) -> dict[str, int]:
        targets = [f"redis={self.valkey.port}", f"postgres={self.postgres.port}"]
        self._proxy = subprocess.Popen(
            tethered([sys.executable, "-m", "tests.faults.proxy", *targets], on_death=signal.SIGKILL),
            env=clean_environment(),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        stack.enter_context(self._proxy)
        stack.callback(self._proxy.kill)
        assert self._proxy.stdout is not None
        ports: dict[str, int] = json.loads(self._proxy.stdout.readline())
        return ports

    def _add_worker(self, name: str, queues: str, concurrency: int, behind: bool, **env: str) -> None:
        argv = ["celery", "-A", "tests.faults.app", "worker", "-E", "-n", f"{name}@%h", "-Q", queues]
        argv += ["-P", "threads", "-c", str(concurrency), "--without-gossip", "--without-mingle"]
        self.fleet.add(name, argv, {**(self._by_proxy if behind else self._direct), **env})

    def add_producers(self, start: float) -> None:
        """Take them in, too: their load begins at `start`, of the monotonic clock."""
        load = {name: getattr(self._load, name) for name in self._load.__slots__}
        for index in range(self._options.producers):
            argv = ["tests.faults.producer", str(index), str(start)]
            self.fleet.add(
                f"producer{index}",
                argv,
                {**(self._by_proxy if index % 2 else self._direct), "FAULTS_LOAD": json.dumps(load)},
                once=True,
            )

    def command(self, words: str) -> None:
        """Tell the proxy."""
        assert self._proxy.stdin is not None
        self._proxy.stdin.write(f"{words}\n".encode())
        self._proxy.stdin.flush()
