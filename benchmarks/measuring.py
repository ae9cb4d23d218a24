"""What `benchmarks.capacity` says, held against real workers: waits, connections, memory, commands.

A load is written down first: when each turn comes, in which session, and how long its model takes. Real
workers at default settings then have it, on a Valkey and a PostgreSQL of their own; and the simulation has
the same list, so what differs is not chance. Run it with `python -m benchmarks.measuring`: the table goes to
standard error, one line of JSON to standard output. It takes two minutes for each load; name some to have
those only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.capacity import Load, plan
from benchmarks.fleet import Fleet, fleet
from benchmarks.history import machine
from benchmarks.simulation import Arrival, Waits, arrivals, quantile, simulate
from inturn.client import Client
from tests.waiting import wait_until

SECONDS = 90.0
WARM_UP = 15.0
LONG = 100
"""How many times as long the simulation is that the formula is held against."""
PROBES = 20
IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class Trial:
    """A load, and the worker processes and slots of each that have to bear it."""

    load: Load
    workers: int
    slots: int


TRIALS = {
    "calm": Trial(Load(turns_per_second=6, model_seconds=1.5, variation=0.5, gap_seconds=60), 1, 20),
    "busy": Trial(Load(turns_per_second=11, model_seconds=1.5, variation=0.5, gap_seconds=60), 1, 20),
    "two workers": Trial(Load(turns_per_second=17, model_seconds=2, variation=0.5, gap_seconds=60), 2, 20),
    "long and short": Trial(Load(turns_per_second=8, model_seconds=2, variation=1.5, gap_seconds=60), 1, 20),
    "bursts": Trial(
        Load(turns_per_second=9, model_seconds=1.5, variation=0.5, gap_seconds=60, burst=4), 1, 20
    ),
    "hasty users": Trial(Load(turns_per_second=8, model_seconds=1.5, variation=0.5, gap_seconds=4), 1, 40),
}

Three = tuple[float, float, float]
"""Waits in seconds: mean, median, 99th percentile."""


@dataclass(frozen=True)
class Compared:
    """One trial. `simulated` is of the list of turns that the workers had, `long_run` of a longer one.

    `overhead` is how long a turn of no time takes a slot, in seconds. Connections are the most that one
    worker process had. `commands` and `statements` are those of Redis and PostgreSQL for each turn, `cpu` the
    workers' seconds of processor for each, all beyond what idle workers take; of Redis that is
    `idle_commands` a second for each process.
    """

    name: str
    turns: int
    overhead: float
    measured: Three
    simulated: Three
    long_run: Three
    formula: Three
    redis_connections: int
    database_connections: int
    megabytes: float
    commands: float
    statements: float
    cpu: float
    idle_commands: float


def compare(name: str, seconds: float, warm_up: float) -> Compared:
    """Run one trial for real, simulate it, and have the formula say what it should be."""
    trial = TRIALS[name]
    given = _turns(trial.load, seconds, seed=7)
    with fleet() as made:
        for _ in range(trial.workers):
            made.start_worker(concurrency=trial.slots, INTURN_AGENT="benchmarks.occupancy:agent")
        processes = [worker.pid for worker in made.workers]
        with Client(made.settings) as client:
            overhead = _overhead(made, client)
            idle = _spent(made, processes, lambda: time.sleep(IDLE_SECONDS))
            began = time.monotonic()
            waits, most, spent = _run(made, client, given, processes, warm_up)
            lasted = (time.monotonic() - began) / IDLE_SECONDS
            each = [(all_of - none * lasted) / len(given) for all_of, none in zip(spent, idle, strict=True)]
    slots = trial.workers * trial.slots
    again = simulate(given, slots=slots, overhead=overhead, warm_up=warm_up)
    longer = simulate(
        _turns(trial.load, seconds * LONG, seed=8), slots=slots, overhead=overhead, warm_up=warm_up
    )
    said = plan(trial.load, workers=trial.workers, slots=trial.slots, overhead=overhead)
    return Compared(
        name,
        len(given),
        overhead,
        _three(waits),
        _three(again.waits),
        _three(longer.waits),
        (said.wait_mean, said.wait_p50, said.wait_p99),
        redis_connections=most[0],
        database_connections=most[1],
        megabytes=most[2],
        commands=each[0],
        statements=each[1],
        cpu=each[2],
        idle_commands=idle[0] / IDLE_SECONDS / trial.workers,
    )


def _turns(load: Load, seconds: float, *, seed: int) -> list[Arrival]:
    return arrivals(
        per_second=load.turns_per_second,
        seconds=load.model_seconds,
        variation=load.variation,
        burst=load.burst,
        sessions=load.sessions,
        until=seconds,
        seed=seed,
    )


def _overhead(made: Fleet, client: Client) -> float:
    """How long a turn takes a slot beside its model: from one begin of the model to the next in a session."""
    handles = [client.respond("probe", f"-{number} 0") for number in range(1, PROBES + 1)]
    for handle in handles:
        handle.get(timeout=120)
    began = sorted(journal(made, lambda number: number < 0).values())
    gaps = [after - before for before, after in pairwise(began)]
    made.journal.unlink()
    return quantile(gaps, 0.5)


def _run(
    made: Fleet, client: Client, given: Sequence[Arrival], processes: Sequence[int], warm_up: float
) -> tuple[list[float], tuple[int, int, float], list[float]]:
    """Send the turns at their times.

    Gives the waits of those that are counted, the peaks of one process, and what all of it has cost.
    """
    before = _counts(made, processes)
    due = time.time() + 2.0
    offered = [0.0] * len(given)

    def send(number: int, turn: Arrival) -> None:
        offered[number] = time.time()
        client.respond(f"s{turn.session}", f"{number} {turn.seconds:.4f}")

    seen = [(0, 0, 0.0)]
    looked = 0.0
    with ThreadPoolExecutor(8) as pool:
        sent = []
        for number, turn in enumerate(given):
            while (left := due + turn.at - time.time()) > 0:
                time.sleep(min(left, 0.5))
                if time.time() - looked > 2:
                    looked = time.time()
                    seen += [peaks(made, pid) for pid in processes]
            sent.append(pool.submit(send, number, turn))
        for each in sent:
            each.result()
    wait_until(lambda: len(journal(made)) == len(given), timeout=600, what="all turns to begin")
    wait_until(lambda: not _waiting(made), timeout=600, what="all turns to end")
    began = journal(made)
    waits = [began[n] - offered[n] for n, turn in enumerate(given) if turn.at >= warm_up]
    redis, database, megabytes = zip(*seen, strict=True)
    spent = [after - was for after, was in zip(_counts(made, processes), before, strict=True)]
    return waits, (max(redis), max(database), max(megabytes)), spent


def journal(made: Fleet, which: Callable[[int], bool] = lambda number: number >= 0) -> dict[int, float]:
    """When the model began, for each turn by its number."""
    lines = made.journal.read_text().splitlines() if made.journal.exists() else []
    return {number: at for number, at in map(json.loads, lines) if which(number)}


def _waiting(made: Fleet) -> int:
    from inturn.turns import Mailbox
    from inturn.turns.connection import connect

    with connect(made.settings, connections=1) as redis:
        return Mailbox(redis, made.settings).pressure.depth()


def peaks(made: Fleet, pid: int) -> tuple[int, int, float]:
    """Connections of a process to Valkey and to PostgreSQL, and its megabytes."""
    database_port = conninfo_to_dict(made.database_url)["port"]
    ports = _remote_ports(pid)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return (
        ports.count(made.valkey.port),
        ports.count(int(str(database_port))),
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    )


def _remote_ports(pid: int) -> list[int]:
    """Where the TCP connections of a process lead, as Linux tells it."""
    sockets = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            sockets.add(os.readlink(handle))
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [int(line[2].partition(":")[2], 16) for line in lines if f"socket:[{line[9]}]" in sockets]


def _cpu(pid: int) -> float:
    """Seconds of processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _spent(made: Fleet, processes: Sequence[int], work: Callable[[], None]) -> list[float]:
    before = _counts(made, processes)
    work()
    return [after - was for after, was in zip(_counts(made, processes), before, strict=True)]


def _counts(made: Fleet, processes: Sequence[int]) -> tuple[float, float, float]:
    with Redis.from_url(made.valkey.url) as redis:
        commands = redis.info("stats")["total_commands_processed"]
    with psycopg.connect(made.database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute("SELECT sum(xact_commit) FROM pg_stat_database").fetchone()
    assert row is not None
    cpu = sum(map(_cpu, processes))
    return float(commands), float(row[0]), cpu


def _three(waits: Sequence[float]) -> Three:
    every = Waits(waits, (), 0.0)
    return every.mean, every.quantile(0.5), every.quantile(0.99)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measuring", description=__doc__)
    parser.add_argument("trials", nargs="*", choices=[[], *TRIALS], help="those of these names only")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long turns come in each")
    parser.add_argument("--warm-up", type=float, default=WARM_UP, help="seconds of them that do not count")
    given = parser.parse_args(arguments)
    found = [compare(name, given.seconds, given.warm_up) for name in given.trials or TRIALS]
    _print(found)
    print(json.dumps({"machine": machine(), "results": [asdict(each) for each in found]}))
    return 0


def _print(found: Sequence[Compared]) -> None:
    table = Table(box=None)
    for title in ("trial", "turns", "wait, s: mean", "median", "p99", "in one process", "for each turn"):
        table.add_column(title)
    for each in found:
        rows = {
            "measured": each.measured,
            "simulated": each.simulated,
            "long": each.long_run,
            "formula": each.formula,
        }
        for title, three in rows.items():
            is_first = title == "measured"
            table.add_row(
                each.name if is_first else "",
                str(each.turns) if is_first else "",
                *(f"{title} {three[0]:.2f}", f"{three[1]:.2f}", f"{three[2]:.2f}"),
                f"{each.redis_connections} + {each.database_connections} connections, {each.megabytes:.0f} MB"
                if is_first
                else "",
                f"{each.commands:.0f} commands, {each.statements:.1f} statements, {each.cpu * 1000:.0f} ms"
                if is_first
                else "",
            )
    Console(stderr=True).print(table)


if __name__ == "__main__":
    sys.exit(main())
