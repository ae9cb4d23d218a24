"""What recovers a turn at each crash point, and within what time: every row of docs/turn-life.md, measured.

Real servers and worker processes at default settings; a process is killed at the very point. The figures
count from the crash (or from the end of an outage) until the last turn of the session has its result. Run it
with `python -m benchmarks.crash_points`; the table goes to standard error, one line of JSON to standard
output.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from celery import Celery
from psycopg import sql
from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.fleet import Fleet, now, scratch
from benchmarks.history import machine
from inturn.client import Client, TurnHandle
from inturn.contract import RESPOND
from inturn.embedded.postgres import EmbeddedPostgres
from inturn.errors import TurnFailedError
from tests.waiting import wait_until

SESSION = "s"
PATIENCE = 400.0
OUTAGE = 5.0


class Trial:
    """One crash: a fleet, and a client of it."""

    def __init__(self, own: Fleet, client: Client, redis: Redis, postgres: EmbeddedPostgres | None) -> None:
        self.fleet = own
        self.client = client
        self.redis = redis
        self.postgres = postgres

    def workers(self, point: str = "", count: int = 2, *, pool: str = "threads", hold: float = 0) -> None:
        """Start workers the first of which dies at the point."""
        for _ in range(count):
            self.fleet.start_worker(pool=pool, concurrency=2, BENCH_POINT=point, BENCH_HOLD=str(hold))
        time.sleep(random.uniform(0, 1))  # nothing keeps step with the sweepers

    def send(self, count: int = 2) -> list[TurnHandle]:
        """Enqueue turns of the session."""
        return [self.client.respond(SESSION, SESSION, turn_id=str(number)) for number in range(1, count + 1)]

    def crash(self) -> tuple[float, int]:
        """When the process died that was to die, and its number; waits for it."""
        return wait_until(self.fleet.crashed, timeout=PATIENCE, what="the crash")  # type: ignore[return-value]

    def since(self, start: float, *handles: TurnHandle) -> float:
        """Seconds until the last of these turns has its result, whatever it is."""
        for handle in handles:
            with suppress(TurnFailedError):
                handle.get(timeout=PATIENCE)
        return now() - start

    def after_crash(self, *handles: TurnHandle) -> float:
        """Seconds from the crash until these turns have their results."""
        at, _ = self.crash()
        return self.since(at, *handles)


def _dies_at(point: str, turns: int = 2) -> Callable[[Trial], float]:
    def trial(trial: Trial) -> float:
        trial.workers(point)
        return trial.after_crash(*trial.send(turns))

    return trial


def _offered(trial: Trial) -> float:
    trial.workers()
    _producer(trial)
    return trial.after_crash(trial.client.handle(SESSION, "1"))


def _offered_again(trial: Trial) -> float:
    trial.workers()
    _producer(trial)
    start = now()
    return trial.since(start, *trial.send(1))


def _offered_behind(trial: Trial) -> float:
    # Counted from the end of the turn before it, which must outlast the start of a producer.
    trial.workers("hold", hold=20)
    (head,) = trial.send(1)
    trial.crash()
    _producer(trial, number="2")
    assert head.status() == "running", "the producer came too late: the turn was at the head"
    trial.since(0, head)
    return trial.since(now(), trial.client.handle(SESSION, "2"))


def _producer(trial: Trial, number: str = "1") -> None:
    env = {**trial.fleet.env, "BENCH_POINT": "offered"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crashing", SESSION, number], env=env, check=False
    )
    assert done.returncode == (0 if number == "2" else -signal.SIGKILL)


def _lost_by_broker(trial: Trial) -> float:
    (handle,) = trial.send(1)
    queues = trial.redis.keys("turns*")
    assert trial.redis.delete(*queues) == 1
    start = now()
    trial.workers(count=1)
    trial.since(start, handle)
    return trial.fleet.calls()[0].at - start  # the worker may have been longer in starting than the sweep


def _bare(trial: Trial) -> float:
    trial.workers("begin")
    app = Celery(broker=trial.fleet.valkey.url, backend=trial.fleet.valkey.url)
    sent = app.send_task(RESPOND, kwargs={"session_id": SESSION, "message": SESSION}, task_id="bare")
    at, _ = trial.crash()
    sent.get(timeout=PATIENCE)
    return now() - at


def _unacknowledged(trial: Trial) -> float:
    trial.workers("empty")
    trial.send(1)
    at, _ = trial.crash()
    assert trial.redis.hlen("unacked") == 1
    wait_until(lambda: trial.redis.hlen("unacked") == 0, timeout=PATIENCE, what="the message to be done with")
    return now() - at


def _child(trial: Trial) -> float:
    trial.workers("model", 1, pool="prefork")
    return trial.after_crash(*trial.send())


def _poison(trial: Trial) -> float:
    trial.workers("poison", 1, pool="prefork")
    return trial.after_crash(*trial.send(1))


def _paused(trial: Trial) -> float:
    trial.workers("hold", hold=120)
    handles = trial.send()
    _, pid = trial.crash()
    time.sleep(random.uniform(2.5, 5))
    os.kill(pid, signal.SIGSTOP)
    return trial.since(now(), *handles)


def _warm(trial: Trial) -> float:
    trial.workers("hold", hold=3)
    first, second = trial.send()
    _, pid = trial.crash()
    os.kill(pid, signal.SIGTERM)
    trial.since(0, first)
    return trial.since(now(), second)


def _unavailable(trial: Trial) -> float:
    trial.workers("unavailable", 1)
    handles = trial.send(1)
    wait_until(trial.fleet.calls, timeout=PATIENCE)
    return trial.since(trial.fleet.calls()[0].at, *handles)


def _refuses(trial: Trial) -> float:
    trial.workers("refuses", 1)
    handles = trial.send(1)
    wait_until(trial.fleet.calls, timeout=PATIENCE)
    return trial.since(trial.fleet.calls()[0].at, *handles)


def _database_away(trial: Trial) -> float:
    trial.workers("hold", hold=1)
    handles = trial.send()
    trial.crash()
    assert trial.postgres is not None
    trial.postgres.stop()
    time.sleep(OUTAGE)
    trial.postgres.start()
    return trial.since(now(), *handles)


def _redis_away(seconds: float) -> Callable[[Trial], float]:
    def trial(trial: Trial) -> float:
        trial.workers("hold", hold=1)
        handles = trial.send()
        trial.crash()
        trial.fleet.valkey.stop()
        time.sleep(seconds)
        trial.fleet.valkey.start()
        start = now()
        settled = lambda: all(handle.status() == "done" for handle in handles)  # noqa: E731
        wait_until(settled, timeout=PATIENCE, what="the turns to be done")
        return now() - start

    return trial


def _flushed(trial: Trial) -> float:
    trial.workers("hold", hold=1)
    handles = trial.send()
    trial.crash()
    trial.redis.flushall()
    return trial.since(now(), *handles)


def _none_there(trial: Trial) -> float:
    handles = trial.send()
    trial.fleet.start_worker(concurrency=2)
    return trial.since(now(), *handles)


def _dead_hand(trial: Trial) -> float:
    trial.workers("begin", 1)
    handles = trial.send()
    at, _ = trial.crash()
    trial.fleet.start_worker(concurrency=2)
    return trial.since(at, *handles)


ROWS: dict[str, Callable[[Trial], float]] = {
    # The long ones first, so that the others run beside them.
    "worker dies with a bare message in hand": _bare,
    "worker dies with the mailbox empty, before the acknowledgement": _unacknowledged,
    "a turn kills each process that runs it": _poison,
    "producer dies before it has published": _offered,
    "the broker loses the message": _lost_by_broker,
    "worker dies with the message in hand": _dies_at("begin"),
    "worker dies after it has yielded, before it has published": _dies_at("yield", turns=9),
    "all workers are down, the message in a dead one's hand": _dead_hand,
    "producer dies before it has published, and the sender repeats": _offered_again,
    "the same, and the turn is not at the head": _offered_behind,
    "worker dies between begin and commit": _dies_at("model"),
    "worker dies between commit and finish": _dies_at("finish"),
    "a child of a prefork pool is killed": _child,
    "worker is paused for longer than its lease": _paused,
    "worker gets SIGTERM": _warm,
    "the model cannot answer four times": _unavailable,
    "the model refuses": _refuses,
    f"the database is away for {OUTAGE:g} s": _database_away,
    f"Redis is away for {OUTAGE:g} s": _redis_away(OUTAGE),
    "Redis restarts": _redis_away(0),
    "Redis loses all it has, with the inbox in the database": _flushed,
    "all workers are down": _none_there,
}


def measure(row: str, shared: str) -> float:
    """One trial, on a Valkey of its own, and on a PostgreSQL of its own where that one is stopped."""
    with ExitStack() as stack:
        directory = stack.enter_context(scratch())
        postgres, server = None, shared
        if ROWS[row] is _database_away:
            postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres", fsync=False))
            server = postgres.url
        database = f"trial_{secrets.token_hex(4)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        own = Fleet(
            directory,
            urlsplit(server)._replace(path=f"/{database}").geturl(),
            inbox="database" if ROWS[row] is _flushed else "redis",
        )
        stack.callback(own.close)
        own.valkey.start()
        redis = stack.enter_context(Redis.from_url(own.valkey.url))
        client = stack.enter_context(Client(own.settings))
        try:
            return ROWS[row](Trial(own, client, redis, postgres))
        except Exception:
            tails = "\n".join(worker.tail(30) for worker in own.workers)
            report = Path(tempfile.mkdtemp(prefix="inturn-crash-points-")) / "workers.log"
            report.write_text(f"{row}\n{tails}\n")
            raise


def main() -> None:
    """Run it; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash_points", description=__doc__)
    parser.add_argument(
        "words", nargs="*", help="measure only the rows with one of these words in their name"
    )
    parser.add_argument("--trials", type=int, default=5, help="of each row")
    parser.add_argument("--beside", type=int, default=8, help="trials at the same time")
    given = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    rows = [row for row in ROWS if not given.words or any(word in row for word in given.words)]
    found: dict[str, list[float]] = {row: [] for row in rows}
    failed: dict[str, int] = dict.fromkeys(rows, 0)

    with ExitStack() as stack:
        directory = stack.enter_context(scratch())
        shared = stack.enter_context(EmbeddedPostgres(directory / "postgres", fsync=False))
        # Processes, because the servers of a trial end with the thread that started them.
        pool = stack.enter_context(ProcessPoolExecutor(given.beside, mp_context=get_context("spawn")))
        trials = {pool.submit(measure, row, shared.url): row for row in rows for _ in range(given.trials)}
        for trial in as_completed(trials):
            row = trials[trial]
            if error := trial.exception():
                failed[row] += 1
                console.print(f"{row}: {type(error).__name__}: {error}", style="red", markup=False)
            else:
                found[row].append(round(trial.result(), 2))
                console.print(f"[dim]{row}: {found[row]}[/]")
    console.print(report(found, failed))
    line = {
        "benchmark": "crash_points",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "seconds": found,
        "failed": failed,
    }
    sys.stdout.write(json.dumps(line) + "\n")


def report(found: dict[str, list[float]], failed: dict[str, int]) -> Table:
    """A table for people."""
    table = Table(title="Seconds until the session's turns are done", title_justify="left", box=None)
    for name in ("crash point", "p50", "max", "trials", "failed"):
        table.add_column(name, justify="left" if name == "crash point" else "right")
    for row, seconds in found.items():
        p50, most = _figures(seconds)
        table.add_row(row, p50, most, str(len(seconds)), str(failed[row]))
    return table


def _figures(seconds: Sequence[float]) -> tuple[str, str]:
    return (f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}") if seconds else ("", "")


if __name__ == "__main__":
    main()
