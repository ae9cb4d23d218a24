"""Run: the servers, the processes, the faults on their schedule, and what came of it."""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from inturn.contract import TurnResult
from inturn.ids import create_turn_id
from inturn.testing.history import Accepted
from tests.channels import Sent
from tests.faults.control import OF_DELIVERIES, OF_PRODUCERS, POINTS, Control
from tests.faults.fleet import Process
from tests.faults.house import House
from tests.faults.judge import Judge
from tests.faults.load import Load
from tests.faults.outcome import Options, Outcome
from tests.faults.producer import read_log
from tests.faults.schedule import OUTAGES, Fault, make_schedule
from tests.faults.verdict import Stranded

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
            self._show("starting Valkey, PostgreSQL and the processes")
            self.house = House(self.options, self.load, self.directory)
            self.house.open(stack, self._answer)
            self.fleet = self.house.fleet
            self.fleet.on_end = self._ended
            self._wait_for_workers()
            self._start = time.monotonic()
            self.house.add_producers(self._start)
            self._disturb()
            self.outcome.load_seconds = time.monotonic() - self._start
            self._calm_down()
            answered = self._drain()
            self.outcome.seconds = time.monotonic() - self._start
            self.fleet.close()
            self._show("judging")
            Judge(self, answered).judge()
        return self.outcome

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
            self.house.command(f"{action} {target}{numbers}")
        elif name == "terminate backends":
            with psycopg.connect(self.house.postgres.url, autocommit=True) as connection:
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
            self.house.postgres.kill() if how == "crash" else self.house.postgres.stop()
            self._start_postgres()
            self.outages.append((now, time.monotonic() + 1.0))
            return
        self.house.valkey.kill() if how == "crash" else self.house.valkey.stop()
        length = self.options.outage_seconds if how == "outage" else 0.2
        self.outages.append((now, now + length + 1.0))
        self._later.append((now + length, self._start_valkey))

    def _start_valkey(self) -> None:
        self.house.valkey.start()

    def _start_postgres(self) -> None:
        # After a crash the server's children hold its memory until they have noticed.
        for attempt in range(20):
            try:
                self.house.postgres.start()
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
        waiting = {each.turn_id: self.house.client.handle(each.session_id, each.turn_id) for each in accepted}
        results: list[TurnResult] = []
        latest = time.monotonic()
        left = (len(waiting), -1)
        while waiting or left[1]:
            self.fleet.look(0.2)
            found = list(self.house.client.collect(waiting.values(), timeout=0)) if waiting else []
            for handle, result in found:
                del waiting[handle.turn_id]
                results.append(result)
            depth = sum(1 for _ in self.house.out.mailbox.items())
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
