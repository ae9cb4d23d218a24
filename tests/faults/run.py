"""Run: the servers, the processes, the faults on their schedule, and what came of it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from inturn.client import Client
from inturn.contract import TurnResult
from inturn.embedded.postgres import EmbeddedPostgres
from inturn.embedded.tether import tethered
from inturn.embedded.valkey import EmbeddedValkey
from inturn.ids import create_turn_id
from inturn.persistence import PersistenceAdapter, open_adapter
from inturn.settings import load_settings
from inturn.testing.history import Accepted
from inturn.turns import Deliveries as DeliveriesInRedis
from inturn.turns import Mailbox
from inturn.turns.connection import connect
from tests.channels import Receiver, Sent
from tests.faults.control import OF_DELIVERIES, OF_PRODUCERS, POINTS, Control
from tests.faults.fleet import Fleet, Process
from tests.faults.judge import Judge
from tests.faults.load import Load
from tests.faults.outcome import Options, Outcome
from tests.faults.producer import read_log
from tests.faults.schedule import OUTAGES, Fault, make_schedule
from tests.faults.verdict import Stranded
from tests.nodes import ROOT, clean_environment

SHORT = {
    "INTURN_LEASE_SECONDS": "2",
    "INTURN_RENEW_SECONDS": "0.5",
    "INTURN_SWEEP_SECONDS": "0.2",
    "INTURN_GRACE_SECONDS": "3",
    "INTURN_RETRY_SECONDS": "0.2",
}
"""Times for a short run; a long one has the defaults, at which the promises are made."""
KINDS_OF_PROCESSES = ("worker", "delivery", "producer")
"""One crash point of each kind waits for a victim at a time."""
START_SECONDS = 120.0


Show = Callable[[str], None]


class Run:
    """One run. It is driven by one thread, the main one, which the servers belong to."""

    def __init__(self, options: Options, directory: Path, show: Show) -> None:
        self.options = options
        self.outcome = Outcome(options)
        self.control = Control(directory)
        self.directory = directory
        self._show = show
        self._chance = random.Random(options.seed)
        self.load = Load(
            turns=options.turns,
            sessions=options.sessions,
            seconds=options.minutes * 60,
            seed=options.seed,
            producers=options.producers,
        )
        self.deaths: list[Stranded] = []
        self.outages: list[tuple[float, float]] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._due: Counter[str] = Counter()
        self._ending: dict[int, str] = {}
        self._read = 0
        self._start = 0.0

    def run(self) -> Outcome:
        """Run to the end, and judge."""
        with ExitStack() as stack:
            self._open(stack)
            self._wait_for_workers()
            self._start = time.monotonic()
            self._add_producers()
            self._disturb()
            self.outcome.load_seconds = time.monotonic() - self._start
            self._calm_down()
            answered = self._drain()
            self.outcome.seconds = time.monotonic() - self._start
            self.fleet.close()
            self._show("judging")
            Judge(self, answered).judge()
        return self.outcome

    def _open(self, stack: ExitStack) -> None:
        self._show("starting Valkey, PostgreSQL and the processes")
        # With `always`, what was accepted outlives a crash of the server: see docs/durability.md.
        self.valkey = stack.enter_context(
            EmbeddedValkey(self.directory / "valkey", config={"appendfsync": "always"})
        )
        self.postgres = stack.enter_context(EmbeddedPostgres(self.directory / "postgres", fsync=False))
        ports = self._open_proxy(stack)
        self.receiver = stack.enter_context(Receiver(self._answer))
        env = {
            "FAULTS_DIR": str(self.directory),
            "FAULTS_RECEIVER": self.receiver.url,
            "FAULTS_MODEL_SECONDS": str(self.options.model_seconds),
            "FAULTS_BREAK": self.options.plant,
            "INTURN_AGENT": "tests.faults.agent:agent",
            "INTURN_CHANNELS": "tests.faults.agent:channel",
            "INTURN_CLEANUP_SECONDS": "15",
            "INTURN_LOG_LEVEL": os.environ.get("INTURN_LOG_LEVEL", "WARNING"),
            **(SHORT if self.options.short else {}),
        }
        self._direct = {"REDIS_URL": self.valkey.url, "DATABASE_URL": self.postgres.url}
        self._by_proxy = {
            "REDIS_URL": self.valkey.url.replace(f":{self.valkey.port}/", f":{ports['redis']}/"),
            "DATABASE_URL": self.postgres.url.replace(f":{self.postgres.port}/", f":{ports['postgres']}/"),
        }
        self.fleet = Fleet(self.directory, env)
        self.fleet.on_end = self._ended
        stack.callback(self.fleet.close)
        self.fleet.open()
        settings = load_settings(redis_url=self.valkey.url, database_url=self.postgres.url)
        self.client = stack.enter_context(Client(settings))
        redis = stack.enter_context(connect(settings))
        self.mailbox = Mailbox(redis, settings)
        self.out = DeliveriesInRedis(redis, settings)
        self.store: PersistenceAdapter = stack.enter_context(open_adapter(self.postgres.url))
        self.store.initialize()
        for number in range(1, self.options.workers + 1):
            # Every second one is behind the proxy; the clock of the last one steps.
            steps = number == self.options.workers and self.options.faults
            more = {"FAULTS_CLOCK": "1" if self.options.short else "10"} if steps else {}
            queues = "turns,maintenance,celery"
            self._add_worker(f"worker{number}", queues, self.options.concurrency, number % 2 == 0, **more)
        for number in (1, 2):
            self._add_worker(f"delivery{number}", "delivery", 4, number % 2 == 0)
            beat = ["celery", "-A", "worker", "beat", "-s", str(self.directory / f"beat{number}.db")]
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

    def _add_producers(self) -> None:
        load = {name: getattr(self.load, name) for name in self.load.__slots__}
        for index in range(self.options.producers):
            argv = ["tests.faults.producer", str(index), str(self._start)]
            self.fleet.add(
                f"producer{index}",
                argv,
                {**(self._by_proxy if index % 2 else self._direct), "FAULTS_LOAD": json.dumps(load)},
                once=True,
            )

    def _wait_for_workers(self) -> None:
        workers = [*self.fleet.named("worker"), *self.fleet.named("delivery")]
        deadline = time.monotonic() + START_SECONDS
        while not all(worker.up for worker in workers):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the workers did not start; their logs are in {self.directory}")
            self._tick()

    # While the load lasts

    def _disturb(self) -> None:
        seconds = self.load.seconds
        options = self.options
        schedule: list[Fault] = []
        if options.faults:
            schedule = make_schedule(seconds, hits=options.hits, outages=options.outages, seed=options.seed)
            wanted = [name.strip() for name in options.only.split(",") if name.strip()]
            schedule = [each for each in schedule if not wanted or each.name in wanted]
        self._patience = time.monotonic() + 2 * seconds + 60
        shown = 0.0
        while not all(process.finished for process in self.fleet.named("producer")):
            self._tick()
            now = time.monotonic() - self._start
            while schedule and schedule[0].due <= now:
                fault = schedule.pop(0)
                if not self._begin(fault.name):
                    schedule.append(Fault(now + 0.5, fault.name))
                    schedule.sort()
            if (not schedule and not self._later and self._all_hit) or time.monotonic() > self._patience:
                self.control.enough.touch()
            if now - shown > 5:
                shown = now
                self._tell(now)

    def _tick(self) -> None:
        self.fleet.look(0.05)
        now = time.monotonic()
        for at, action in [each for each in self._later if each[0] <= now]:
            self._later.remove((at, action))
            action()
        for line in self._new_lines():
            if line[0] == "ready":
                for process in self.fleet.processes.values():
                    process.ready = process.ready or process.pid == line[1]
            elif line[0] == "death":
                self.deaths.append(Stranded(line[1], line[2], "killed"))
                self.outcome.points[line[3]] = self.outcome.points.get(line[3], 0) + 1
        if not self._away:
            self._arm()

    def _arm(self) -> None:
        armed = self.control.armed()
        for kind in KINDS_OF_PROCESSES:
            if any(_kind(point) == kind for point in armed) or (kind == "worker" and not self._enough_up):
                continue
            short = [
                point
                for point in POINTS
                if _kind(point) == kind and self.outcome.points.get(point, 0) < self._due[point]
            ]
            if short:
                self.control.arm(self._chance.choice(short))

    @property
    def _all_hit(self) -> bool:
        return all(self.outcome.points.get(point, 0) >= due for point, due in self._due.items())

    @property
    def _enough_up(self) -> bool:
        """Whether a worker may go: at least two others are at work then, as long as there are four."""
        workers = self.fleet.named("worker")
        return sum(each.up and each.pid not in self._ending for each in workers) >= len(workers) - 1

    @property
    def _away(self) -> bool:
        return bool(self.outages) and self.outages[-1][1] > time.monotonic()

    def _begin(self, name: str) -> bool:
        """Begin a fault; False: not now."""
        if name.startswith("die "):
            self._due[name[4:]] += 1
            return True
        if name in OUTAGES and self._away:
            return False
        action, _, target = name.partition(" ")
        done = True
        if action in ("kill", "pause", "warm", "cold"):
            done = self._signal(action, "delivery" if target == "delivery" else "worker")
        elif action in ("cut", "lose", "delay"):
            numbers = {"cut": "", "lose": " 3", "delay": " 0.4 4"}[action]
            self._command(f"{action} {target}{numbers}")
        elif name == "terminate backends":
            with psycopg.connect(self.postgres.url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND random() < 0.7"
                )
        elif name == "rolling restart":
            self._roll(1)
        else:
            self._take_away(name)
        if done:
            self.outcome.faults[name] += 1
            self.control.note("fault", name)
        return done

    def _signal(self, action: str, kind: str) -> bool:
        up = [process for process in self.fleet.named(kind) if process.up and process.pid not in self._ending]
        if len(up) < 2 or (kind == "worker" and not self._enough_up):
            return False
        victim = self._chance.choice(up)
        pid, now = victim.pid or 0, time.monotonic()
        number = {
            "kill": signal.SIGKILL,
            "pause": signal.SIGSTOP,
            "warm": signal.SIGTERM,
            "cold": signal.SIGQUIT,
        }[action]
        if not self.fleet.signal(victim, number):
            return False
        how = {"kill": "killed", "pause": "paused", "warm": "warm shutdown", "cold": "cold shutdown"}[action]
        if action != "warm":
            self.deaths.append(Stranded(pid, now, how))
        if action == "pause":
            length = 4.0 if self.options.short else 14.0
            self._later.append((now + length, lambda: self._resume(victim, pid)))
        elif action != "kill":
            self._ending[pid] = how
        return True

    def _resume(self, process: Process, pid: int) -> None:
        if process.pid == pid:
            self.fleet.signal(process, signal.SIGCONT)

    def _take_away(self, name: str) -> None:
        now = time.monotonic()
        server, _, how = name.partition(" ")
        if server == "postgres":
            self.postgres.kill() if how == "crash" else self.postgres.stop()
            self._start_postgres()
            self.outages.append((now, time.monotonic() + 1.0))
            return
        self.valkey.kill() if how == "crash" else self.valkey.stop()
        length = self.options.outage_seconds if how == "outage" else 0.2
        self.outages.append((now, now + length + 1.0))
        self._later.append((now + length, self._start_valkey))

    def _start_valkey(self) -> None:
        self.valkey.start()

    def _start_postgres(self) -> None:
        # After a crash the server's children hold its memory until they have noticed.
        for attempt in range(20):
            try:
                self.postgres.start()
                return
            except Exception:
                if attempt == 19:
                    raise
                time.sleep(0.25)

    def _roll(self, number: int) -> None:
        """Bring one worker after the other to the next release, with a producer after the second one."""
        workers = [*self.fleet.named("worker"), *self.fleet.named("delivery")]
        if not self._enough_up and time.monotonic() < self._patience:
            self._later.append((time.monotonic() + 0.5, lambda: self._roll(number)))
            return
        upgraded = workers[number - 1]
        upgraded.env["FAULTS_RELEASE"] = "2"
        if upgraded.up and upgraded.pid not in self._ending:
            assert upgraded.pid is not None
            self._ending[upgraded.pid] = "warm shutdown"
            self.fleet.signal(upgraded, signal.SIGTERM)
        if number in (2, len(workers)):
            producers = self.fleet.named("producer")
            for producer in producers[:1] if number == 2 else producers[1:]:
                producer.env["FAULTS_RELEASE"] = "2"
                self.fleet.signal(producer, signal.SIGTERM)
        if number < len(workers):
            pause = self.load.seconds * 0.3 / len(workers)
            self._later.append((time.monotonic() + pause, lambda: self._roll(number + 1)))

    def _command(self, words: str) -> None:
        assert self._proxy.stdin is not None
        self._proxy.stdin.write(f"{words}\n".encode())
        self._proxy.stdin.flush()

    def _ended(self, process: Process, pid: int, code: int) -> None:
        how = self._ending.pop(pid, None)
        if how is not None:
            self.outcome.counts[f"{how}, ended with {code}"] += 1
        elif code not in (0, -signal.SIGKILL, -signal.SIGTERM):
            self.outcome.counts[f"{process.name.rstrip('0123456789')} ended by itself with {code}"] += 1

    def _answer(self, sent: Sent) -> int | float | str:
        dice = random.random()
        if not self.options.faults or dice > 0.02:
            return 200
        return 0.5 if dice > 0.005 else "drop"

    def _new_lines(self) -> Iterator[list[Any]]:
        if not self.control.journal.exists():
            return
        with self.control.journal.open("rb") as lines:
            lines.seek(self._read)
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                yield json.loads(line)

    def _tell(self, now: float) -> None:
        told = sum(len(read_log(self.directory, index)) for index in range(self.options.producers))
        hits = sum(self.outcome.points.values())
        others = sum(self.outcome.faults.values())
        self._show(f"{now:4.0f} s  {told} of {self.options.turns} turns accepted, {hits + others} faults")

    # At the end

    def _calm_down(self) -> None:
        for point in POINTS:
            self.control.disarm(point)
        for _, action in sorted(self._later, key=lambda each: each[0]):
            action()
        self._later.clear()
        for process in self.fleet.processes.values():
            if process.paused:
                self.fleet.signal(process, signal.SIGCONT)

    def _drain(self) -> list[TurnResult]:
        """Wait until every turn has its result and nothing waits to be sent, as long as something happens."""
        accepted = self.accepted()
        waiting = {each.turn_id: self.client.handle(each.session_id, each.turn_id) for each in accepted}
        results: list[TurnResult] = []
        latest = time.monotonic()
        left = (len(waiting), -1)
        while waiting or left[1]:
            self.fleet.look(0.2)
            found = list(self.client.collect(waiting.values(), timeout=0)) if waiting else []
            for handle, result in found:
                del waiting[handle.turn_id]
                results.append(result)
            depth = sum(1 for _ in self.out.mailbox.items())
            if (len(waiting), depth) != left:
                left, latest = (len(waiting), depth), time.monotonic()
                self._show(f"      {left[0]} turns without a result, {left[1]} replies not yet sent")
            if time.monotonic() - latest > self.options.drain_seconds:
                break
            time.sleep(0.3)
        self.unanswered = sorted(waiting)
        return results

    def accepted(self) -> list[Accepted]:
        """What the producers were told yes for."""
        return [
            Accepted(session_id, create_turn_id(session_id, f"t{number}"), number, datetime.fromisoformat(at))
            for index in range(self.options.producers)
            for session_id, number, at, _ in read_log(self.directory, index)
        ]


def _kind(point: str) -> str:
    return "producer" if point in OF_PRODUCERS else "delivery" if point in OF_DELIVERIES else "worker"


def postgres_directory(directory: Path) -> Path:
    """Where the database may be: as root its server runs as `nobody`, and needs to get there."""
    return directory / "postgres"


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for one run, which everybody may enter; it is kept where `FAULTS_KEEP` is set."""
    if os.environ.get("FAULTS_KEEP"):
        directory = Path(tempfile.mkdtemp(prefix="inturn-faults-"))
        directory.chmod(0o711)
        yield directory
    else:
        with tempfile.TemporaryDirectory(prefix="inturn-faults-") as name:
            Path(name).chmod(0o711)
            yield Path(name)
