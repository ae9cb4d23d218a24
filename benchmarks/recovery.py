"""How soon do the sessions of a killed worker go on? 1, 100 and 10,000 of them, at default settings.

A process has sessions in hand and renews their leases; then it is killed with SIGKILL, while another worker
looks on. The figures count from the kill. The same number of turns that nobody stranded then runs from the
queue, on a worker of the same kind: that ratio, and the numbers of commands, are the result. Run it with
`python -m benchmarks.recovery`; the table goes to standard error, one line of JSON to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.fleet import Fleet, fleet, now
from benchmarks.history import machine
from inturn.client import Client
from inturn.ids import create_turn_id
from inturn.settings import load_settings
from inturn.turns import Heartbeat, Mailbox
from inturn.turns.connection import connect
from inturn.turns.lease import create_token
from inturn.turns.payloads import encode_payload, respond_payload
from tests.waiting import wait_until

SIZES = (1, 100, 10_000)
GOAL = 10.0
THREADS = 32
MOST_IN_HAND = 100
"""So many a worker process has in hand at once, as the Procfile starts it; beyond that a process that takes
leases and renews them stands in for a hundred workers."""
SCANS = ("keys", "scan", "hscan", "zscan", "sscan")


@dataclass(frozen=True)
class Run:
    """Turns from their start: the kill, or the first turn's begin where nobody was killed.

    Seconds until the first and the last turn began, and until the last was committed; `span` is from the
    first begin to the last commit. `woken` counts the wake-ups by sweepers, `commands` those of Redis for
    each turn, inside scripts too, and `scans` those among them that walk through keys.
    """

    first: float
    last: float
    committed: float
    span: float
    calls: int
    woken: int
    commands: float
    scripts: float
    scans: int


@dataclass(frozen=True)
class Result:
    """One run with `size` stranded sessions; `queued` are as many turns that were not stranded."""

    size: int
    victim: str
    stranded: Run
    queued: Run
    ratio: float | None
    """`span` to `span`; None for a single turn, whose span is nothing."""


def measure(size: int) -> Result:
    """Strand `size` sessions, watch them go on, and then the same number of turns from the queue."""
    victim = "a worker" if size <= MOST_IN_HAND else "a process that renews leases"
    stranded, queued = _stranded(size), _queued(size)
    return Result(size, victim, stranded, queued, round(stranded.span / queued.span, 2) if size > 1 else None)


def _stranded(size: int) -> Run:
    with fleet() as own, Redis.from_url(own.valkey.url) as redis, ExitStack() as stack:
        kill = _worker_in_hand(own, size) if size <= MOST_IN_HAND else _leases_in_hand(own, size, stack)
        rescuer = own.start_worker(concurrency=THREADS)
        time.sleep(random.uniform(2.5, 5))  # somewhere between two renewals
        own.journal.unlink(missing_ok=True)
        redis.config_resetstat()
        start = now()
        kill()
        return _watch(own, redis, start, "stranded", size, rescuer.logs)


def _queued(size: int) -> Run:
    # On servers of its own: the other run may have left messages in the queue.
    with fleet() as own, Redis.from_url(own.valkey.url) as redis:
        with Client(own.settings) as client:
            for number in range(size):
                client.respond(f"queued-{number}", f"queued-{number}")
        redis.config_resetstat()
        rescuer = own.start_worker(concurrency=THREADS, ready=False)
        return _watch(own, redis, None, "queued", size, rescuer.logs)


def _worker_in_hand(own: Fleet, size: int) -> Callable[[], None]:
    victim = own.start_worker(concurrency=MOST_IN_HAND, BENCH_POINT="strand", BENCH_HOLD="600")
    with Client(own.settings) as client:
        for number in range(size):
            client.respond(f"stranded-{number}", f"stranded-{number}")
    wait_until(lambda: len(own.calls()) == size, timeout=120, what="all turns to be in hand")
    return victim.remove


def _leases_in_hand(own: Fleet, size: int, stack: ExitStack) -> Callable[[], None]:
    holder = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.recovery", "--hold", str(size)],
        env=own.env,
        stdout=subprocess.PIPE,
        text=True,
    )

    def kill() -> None:
        holder.kill()
        holder.wait()

    stack.callback(kill)
    assert holder.stdout is not None
    # Before it there may be warnings: on a machine that is too busy some leases are lost even now, and the
    # counts of the run would not be those of a kill.
    said = holder.stdout.readline()
    if said != "held\n":
        raise RuntimeError(f"the machine is too busy for {size:,} leases, or has no room: {said.strip()!r}")
    return kill


def hold(size: int) -> None:
    """Take the leases of so many sessions, say so, and renew them for ever."""
    settings = load_settings()
    with connect(settings) as redis, ExitStack() as stack:
        mailbox = Mailbox(redis, settings)
        heartbeat = Heartbeat(mailbox, settings.renew_seconds)
        heartbeat.start()
        for number in range(size):
            session_id = f"stranded-{number}"
            turn_id = create_turn_id(session_id)
            payload = encode_payload(settings, respond_payload(settings, session_id, session_id))
            begun = mailbox.begin(session_id, turn_id, create_token(), payload=payload)
            assert begun.lease is not None
            stack.enter_context(heartbeat.hold(begun.lease))
        sys.stdout.write("held\n")
        sys.stdout.flush()
        while True:
            time.sleep(60)


def _watch(
    own: Fleet, redis: Redis, start: float | None, name: str, size: int, logs: Callable[[], bytes]
) -> Run:
    """Wait until all sessions of this name have committed, and tell how it went."""
    with psycopg.connect(own.database_url, autocommit=True) as connection:

        def committed() -> tuple[int, float]:
            with contextlib.suppress(psycopg.errors.UndefinedTable):
                row = connection.execute(
                    "SELECT count(*), coalesce(extract(epoch FROM max(created_at)), 0) FROM agent_turns"
                    " WHERE session_id LIKE %s",
                    [f"{name}-%"],
                ).fetchone()
                assert row is not None
                return int(row[0]), float(row[1])
            return 0, 0.0

        wait_until(lambda: committed()[0] == size, timeout=600, what=f"{size} turns to be committed")
        last_commit = committed()[1]
    stats: Any = redis.info("commandstats")
    counts = {key.removeprefix("cmdstat_"): int(stat["calls"]) for key, stat in stats.items()}
    calls = own.calls()
    begun = start or calls[0].at
    return Run(
        first=round(calls[0].at - begun, 2),
        last=round(calls[-1].at - begun, 2),
        committed=round(last_commit - begun, 2),
        span=round(last_commit - calls[0].at, 3),
        calls=len(calls),
        woken=len(re.findall(rb"session woken", logs())),
        commands=round(sum(counts.values()) / size, 1),
        scripts=round(counts.get("evalsha", 0) / size, 1),
        scans=sum(counts.get(scan, 0) for scan in SCANS),
    )


def run(sizes: Sequence[int], rounds: int, show: Callable[[str], None]) -> Iterator[Result]:
    """Measure each size so often; the largest once, as it is many sessions by itself."""
    for size in sizes:
        for number in range(1 if size > MOST_IN_HAND else rounds):
            show(f"{size:,} stranded, round {number + 1}")
            yield measure(size)


def report(results: Sequence[Result]) -> Table:
    """A table for people."""
    table = Table(title="Seconds from the kill", title_justify="left", box=None)
    names = ("stranded", "first begins", "last begins", "last committed", "turns/s", "queued", "ratio")
    for name in (*names, "woken", "commands", "queued", "scans"):
        table.add_column(name, justify="right")
    for result in results:
        own, other = result.stranded, result.queued
        table.add_row(
            f"{result.size:,}",
            f"[{'green' if own.first < GOAL else 'red'}]{own.first:.1f}[/]",
            *(f"{own.last:.1f}", f"{own.committed:.1f}"),
            *_rates(result),
            *(f"{own.woken:,}", f"{own.commands:,.0f}", f"{other.commands:,.0f}", str(own.scans)),
        )
    return table


def _rates(result: Result) -> tuple[str, str, str]:
    if result.ratio is None:
        return "", "", ""
    stranded, queued = (f"{result.size / each.span:,.0f}" for each in (result.stranded, result.queued))
    return stranded, queued, f"{result.ratio:.2f}"


def main() -> None:
    """Run it; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, help=f"stranded sessions; {SIZES} without any")
    parser.add_argument("--rounds", type=int, default=5, help=f"of sizes up to {MOST_IN_HAND}")
    parser.add_argument("--hold", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hold:
        hold(given.hold)
    console = Console(stderr=True, highlight=False)
    sizes = given.sizes or SIZES
    results = list(run(sizes, given.rounds, lambda text: console.print(f"[dim]{text}[/]")))
    console.print(report(results))
    console.print(
        f"first begins: under {GOAL:g} is the goal; ratio: the time from the first turn's begin to the last "
        "commit, stranded to queued; commands: of Redis, for each turn, inside scripts too; with few turns "
        "most are those of idle workers",
        style="dim",
    )
    line = {
        "benchmark": "recovery",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "results": [asdict(result) for result in results],
    }
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
