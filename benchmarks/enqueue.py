"""How many turns does one producer process get accepted, and how long does `client.respond` take?

The same number of calls from 1, 8 and 32 threads of one process, in turns within one run: turns of ours, each
the first of its session (an offer and a message) or in bursts of ten (a message serves the burst), plain
Celery's `apply_async`, which keeps no order and knows no turn again, and one bare round trip of redis-py that
takes the same payload. Nobody works on them. Run it with `python -m benchmarks.enqueue`; the table goes to
standard error, one line of JSON to standard output. Afterwards it counts what is there: the exit code is 1
if a call that was answered is not there exactly once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from redis import BlockingConnectionPool, Redis
from rich.console import Console
from rich.table import Table

from benchmarks.history import machine
from inturn.client import Client
from inturn.embedded.valkey import EmbeddedValkey
from inturn.settings import load_settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect

THREADS = (1, 8, 32)
BURST = 10
SAID = "A table for four on Friday evening, please, and if there is one by the window, all the better. " * 2


@dataclass(frozen=True)
class Kind:
    """A way to enqueue: `call` takes a number that is its own; `count` tells what is there."""

    name: str
    call: Callable[[int], object]
    count: Callable[[], int]


@dataclass(frozen=True)
class Result:
    """One way from so many threads: calls a second, milliseconds of a call, and how many are missing or
    double; each figure but the last is the median of the rounds. `ratio` is the rate against that of plain
    Celery in the same round."""

    kind: str
    threads: int
    per_second: float
    ratio: float
    p50: float
    p99: float
    wrong: int


@contextmanager
def kinds() -> Iterator[tuple[Redis, list[Kind]]]:
    """The ways, all on one Valkey, and a client to empty it with."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inturn-benchmark-")))
        server = stack.enter_context(EmbeddedValkey(directory / "valkey", appendonly=False))
        settings = load_settings(redis_url=server.url)
        client = stack.enter_context(Client(settings))
        own = stack.enter_context(connect(settings))
        mailbox = Mailbox(own, settings)
        app = Celery("plain", broker=server.url, set_as_current=False)
        stack.callback(app.close)

        @app.task(name="plain", ignore_result=True)
        def plain(session_id: str, message: str) -> None:
            """Nobody runs it."""

        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(server.url, max_connections=64)
        bare = stack.enter_context(Redis(connection_pool=pool))
        task: Any = plain
        yield (
            own,
            [
                Kind("inturn, one by one", lambda n: client.respond(f"s{n}", SAID), mailbox.depth),
                Kind(
                    "inturn, bursts of ten", lambda n: client.respond(f"b{n // BURST}", SAID), mailbox.depth
                ),
                Kind("Celery", lambda n: task.apply_async((f"s{n}", SAID)), lambda: int(bare.llen("celery"))),
                Kind("bare Redis", lambda _: bare.rpush("bare", SAID), lambda: int(bare.llen("bare"))),
            ],
        )


def enqueue(kind: Kind, threads: int, calls: int) -> tuple[float, list[float]]:
    """Make the calls; the seconds they took in all, and each of them."""
    each = calls // threads // BURST * BURST
    start = threading.Barrier(threads + 1)
    seconds: list[list[float]] = [[] for _ in range(threads)]

    def work(place: int) -> None:
        start.wait()
        for number in range(place * each, (place + 1) * each):
            began = time.perf_counter()
            kind.call(number)
            seconds[place].append(time.perf_counter() - began)

    workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began, [one for some in seconds for one in some]


def measure(calls: int, rounds: int, show: Callable[[str], None]) -> list[Result]:
    """Take all ways in turns, in changing order."""
    results = []
    with kinds() as (redis, ways):
        for threads in THREADS:
            rates: dict[str, list[float]] = {way.name: [] for way in ways}
            times: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
            wrong = dict.fromkeys(rates, 0)
            for number in range(rounds + 1):  # the first one opens the connections
                show(f"{threads} threads, round {number} of {rounds}")
                for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                    redis.flushall()
                    took, seconds = enqueue(
                        way, threads, calls if number else max(calls // 10, threads * BURST)
                    )
                    wrong[way.name] += abs(way.count() - len(seconds))
                    if number:
                        percentiles = statistics.quantiles(seconds, n=100)
                        rates[way.name].append(len(seconds) / took)
                        times[way.name].append((percentiles[49] * 1000, percentiles[98] * 1000))
            for name, some in rates.items():
                ratio = statistics.median(
                    own / plain for own, plain in zip(some, rates["Celery"], strict=True)
                )
                p50, p99 = (statistics.median(figures) for figures in zip(*times[name], strict=True))
                results.append(
                    Result(
                        name,
                        threads,
                        round(statistics.median(some), 1),
                        round(ratio, 2),
                        round(p50, 2),
                        round(p99, 2),
                        wrong[name],
                    )
                )
    return results


def report(results: list[Result]) -> Table:
    """A table for people."""
    table = Table(title="Enqueued by one process", title_justify="left", box=None)
    for name in ("threads", "", "calls/s", "to Celery", "p50 ms", "p99 ms", "missing or double"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for each in results:
        table.add_row(
            str(each.threads),
            each.kind,
            f"{each.per_second:,.0f}",
            f"{each.ratio:.2f}",
            f"{each.p50:.2f}",
            f"{each.p99:.2f}",
            str(each.wrong),
        )
    return table


def main() -> None:
    """Run it; the exit code is 1 if something is missing, or there twice."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enqueue", description=__doc__)
    parser.add_argument("--calls", type=int, default=3_200, help="calls of each way in a round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    console = Console(stderr=True, highlight=False, width=110)
    results = measure(given.calls, given.rounds, lambda text: console.print(f"[dim]{text}[/]"))
    console.print(report(results))
    line = {
        "benchmark": "enqueue",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "calls": given.calls,
        "rounds": given.rounds,
        "machine": machine(),
        "results": [asdict(each) for each in results],
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.exit(1 if any(each.wrong for each in results) else 0)


if __name__ == "__main__":
    main()
