"""How much does retention slow turns down? Old sessions are deleted from PostgreSQL while turns run.

Windows with and without retention follow each other on the same worker, the same tables and the same load, so
whatever else the machine does disturbs both: the result is the ratio of a turn's time in the two, and how
often PostgreSQL went over a whole table meanwhile. Run it with `python -m benchmarks.retention`; the table
goes to standard error, one line of JSON to standard output. The exit code is 1 if the goal was missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.fleet import Fleet, fleet
from benchmarks.history import machine
from inturn.client import Client
from inturn.persistence.schema import upgrade
from inturn.retention import RetentionReport
from inturn.session.state import utcnow
from tests.nodes import worker_container

GOAL = 1.3
PRODUCERS = 4
PAGE = 200
MOST_SCANS = 0.05
"""Whole scans of a table, for each page of sessions: where few are left, that is PostgreSQL's best way."""

_FILL = """
WITH s AS (
    INSERT INTO agent_sessions (id, user_id, status, message_count, created_at, updated_at, completed_at)
    SELECT 'old-' || n, 'user-' || n %% 1000, 'completed', %(messages)s, t, t, t
    FROM generate_series(%(first)s::int, %(last)s::int) AS n,
        LATERAL (SELECT now() - interval '90 days' + n * interval '10 seconds' AS t) AS times
    RETURNING id, user_id, created_at
)
INSERT INTO agent_messages (id, session_id, sequence, turn_id, user_id, role, content, created_at)
SELECT
    'msg_' || id || '_' || m, id, m, id || ':' || (m + 1) / 2, user_id,
    CASE m %% 2 WHEN 1 THEN 'user' ELSE 'assistant' END, repeat('What was said. ', 13), created_at
FROM s, generate_series(1, %(messages)s::int) AS m
"""
_TURNS = """
INSERT INTO agent_turns (session_id, turn_id, result)
SELECT session_id, turn_id, '{"message": "What was said."}' FROM agent_messages WHERE sequence %% 2 = 0
"""
_SCANS = """
SELECT relname, seq_scan FROM pg_stat_user_tables
WHERE relname IN ('agent_sessions', 'agent_messages', 'agent_turns')
"""


@dataclass(frozen=True)
class Window:
    """Turns that began and ended in one window: how many a second, and how long one took (ms)."""

    turns: int
    per_second: float
    p50: float
    p95: float


@dataclass(frozen=True)
class Result:
    """One run. `ratios` are p50 with retention to p50 without, of neighbouring windows; `ratio` their median.

    `deleted` sessions went in `busy` seconds of windows; `scans` counts whole scans of a table meanwhile.
    """

    sessions: int
    messages: int
    deleted: int
    busy: float
    ratio: float
    ratio_p95: float
    ratios: list[float]
    scans: dict[str, int]
    without: list[Window]
    during: list[Window]


def measure(sessions: int, messages: int, seconds: float) -> Result:
    """Delete all of so many sessions, in windows of so many seconds."""
    with fleet() as own:
        _fill(own, sessions, messages)
        worker = worker_container(
            own.directory,
            {**own.env, "BENCH_BUDGET": str(seconds)},
            concurrency=PRODUCERS * 2,
            app="benchmarks.retaining",
        )
        own.workers.append(worker)
        worker.start()
        with _load(own) as load, Client(own.settings) as client:
            load.window(min(5.0, seconds))  # connections are made, caches are warm
            before = _scans(own)
            without, during, busy = [], [], 0.0
            report = RetentionReport()
            while not report.finished:
                without.append(load.window(seconds))
                start = utcnow()
                task = client.cleanup_sessions()
                during.append(load.window(seconds))
                report = RetentionReport.model_validate(task.get(timeout=seconds + 60))
                busy += (report.changed_at - start).total_seconds()
            scans = {name: count - before[name] for name, count in _scans(own).items()}
    # The last window had retention in a part of it only.
    pairs = list(zip(without, during, strict=True))[:-1] or [(without[0], during[0])]
    ratios = [round(with_it.p50 / quiet.p50, 2) for quiet, with_it in pairs]
    p95 = [with_it.p95 / quiet.p95 for quiet, with_it in pairs]
    return Result(
        sessions,
        messages,
        report.deleted["completed"],
        round(busy, 1),
        round(statistics.median(ratios), 2),
        round(statistics.median(p95), 2),
        ratios,
        scans,
        without,
        during,
    )


class _Load:
    """Turns, one after the other in each producer."""

    def __init__(self, own: Fleet) -> None:
        self._own = own
        self._ended = threading.Event()
        self._times: list[tuple[float, float]] = []
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(PRODUCERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def window(self, seconds: float) -> Window:
        """What happens in the next so many seconds."""
        start = time.monotonic()
        self._ended.wait(seconds)
        end = time.monotonic()
        took = sorted((b - a) * 1000 for a, b in list(self._times) if a >= start and b <= end)
        if not took:
            raise RuntimeError("no turn ended in a window: the machine is too busy, or the window too short")
        return Window(
            len(took),
            round(len(took) / (end - start), 1),
            round(statistics.median(took), 1),
            round(took[int(len(took) * 0.95)], 1),
        )

    def _work(self, number: int) -> None:
        with Client(self._own.settings) as client:
            turn = 0
            while not self._ended.is_set():
                turn += 1
                start = time.monotonic()
                client.respond(f"live-{number}-{turn % 50}", "What was said.").get(timeout=60)
                self._times.append((start, time.monotonic()))


@contextmanager
def _load(own: Fleet) -> Iterator[_Load]:
    load = _Load(own)
    load.start()
    try:
        yield load
    finally:
        load.stop()


def _fill(own: Fleet, sessions: int, messages: int) -> None:
    upgrade(own.database_url)
    with psycopg.connect(own.database_url, autocommit=True) as connection:
        for first in range(1, sessions + 1, 10_000):
            last = min(first + 9999, sessions)
            connection.execute(_FILL, {"first": first, "last": last, "messages": messages})
        connection.execute(_TURNS, {})
        connection.execute("VACUUM ANALYZE agent_sessions, agent_messages, agent_turns")


def _scans(own: Fleet) -> dict[str, int]:
    with psycopg.connect(own.database_url, autocommit=True) as connection:
        time.sleep(1.5)  # counters are written once a second
        return dict(connection.execute(_SCANS).fetchall())


def _print(console: Console, result: Result) -> None:
    table = Table(title=f"{result.sessions:,} sessions of {result.messages} messages")
    for name in ("without: turns/s", "p50 ms", "p95 ms", "with: turns/s", "p50 ms", "p95 ms"):
        table.add_column(name, justify="right")
    for quiet, busy in zip(result.without, result.during, strict=True):
        table.add_row(
            *(str(value) for each in (quiet, busy) for value in (each.per_second, each.p50, each.p95))
        )
    console.print(table)
    console.print(
        f"deleted {result.deleted:,} in {result.busy:,.0f} s; ratio {result.ratio} (p95 {result.ratio_p95}, "
        f"goal {GOAL}); whole scans {result.scans}"
    )


def main() -> int:
    """Run it. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=20, help="messages of each session")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long a window is")
    arguments = parser.parse_args()
    result = measure(arguments.sessions, arguments.messages, arguments.seconds)
    _print(Console(stderr=True), result)
    print(json.dumps({"machine": machine(), "retention": asdict(result)}))
    most = MOST_SCANS * result.deleted / PAGE
    return int(result.ratio > GOAL or any(count > most for count in result.scans.values()))


if __name__ == "__main__":
    sys.exit(main())
