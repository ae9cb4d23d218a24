"""Does a turn cost more where PostgreSQL holds more sessions? 1,000 to 100,000 of them, or 1,000,000.

Each size is a database of its own on one server. Half of the sessions are old and completed, the others are
active, and all have the same number of messages. Turns are taken in active sessions at random, in none twice:
`load` with the newest messages and the turn's ID, then `commit` of two messages and the turn's record, as a
worker does. A batch of retention finds the oldest completed sessions and deletes them with all they have. The
sizes take turns in changing order, so that noise hits all alike. Run it with `python -m benchmarks.growth`,
with `--full` up to 1,000,000 sessions of 4 messages (of 10 otherwise); the table goes to standard error, one
line of JSON to standard output. *Read* is how many pages PostgreSQL did not have at hand for a turn, and had
to ask the system for: `--shared-buffers 2GB` gives it room for all of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from benchmarks.history import GOAL, machine, take_turn
from benchmarks.stores import data_directory
from inturn.embedded.postgres import EmbeddedPostgres
from inturn.persistence import PersistenceAdapter, SessionQuery, open_adapter
from inturn.persistence.adapter import Target
from inturn.session.state import utcnow

SIZES = (1_000, 10_000, 100_000)
MILLION = 1_000_000
WINDOW = 4
BATCH = 50
BATCHES = 8
WARM_UP = 10
_FILL = """
WITH s AS (
    INSERT INTO agent_sessions (id, user_id, status, message_count, created_at, updated_at, completed_at)
    SELECT
        's' || n, 'user-' || n / 10, CASE n %% 2 WHEN 0 THEN 'completed' ELSE 'active' END, %(messages)s,
        t, t, CASE n %% 2 WHEN 0 THEN t END
    FROM generate_series(%(first)s::int, %(last)s::int) AS n,
        LATERAL (SELECT now() - CASE n %% 2 WHEN 0 THEN interval '90 days' ELSE interval '20 days' END
            + n * interval '1 second' AS t) AS times
    RETURNING id, user_id, created_at
), m AS (
    INSERT INTO agent_messages (id, session_id, sequence, turn_id, user_id, role, content, created_at)
    SELECT
        'msg_' || id || '_' || m, id, m, id || ':' || (m + 1) / 2, user_id,
        CASE m %% 2 WHEN 1 THEN 'user' ELSE 'assistant' END, repeat('What was said. ', 13), created_at
    FROM s, generate_series(1, %(messages)s::int) AS m
)
INSERT INTO agent_turns (session_id, turn_id, result)
SELECT id, id || ':' || t, '{"message": "What was said."}'
FROM s, generate_series(1, %(messages)s::int / 2) AS t
"""


@dataclass(frozen=True)
class Result:
    """At one size: milliseconds of a turn, of its load and commit, and of a batch of retention, all medians.

    The ratios are to the smallest size, of neighbours in time; their medians. `read` is the mean number of
    pages that a turn needed and PostgreSQL had to ask the system for.
    """

    sessions: int
    messages: int
    turn: float
    load: float
    commit: float
    turn_ratio: float
    batch: float
    batch_ratio: float
    read: float


@contextmanager
def stores(
    sizes: Sequence[int], messages: int, show: Callable[[str], None], shared_buffers: str | None = None
) -> Iterator[tuple[dict[int, PersistenceAdapter], Callable[[int], int]]]:
    """A store of each size, filled; and a function that tells how many pages it has asked the system for."""
    with ExitStack() as stack:
        directory = stack.enter_context(data_directory())
        server = stack.enter_context(EmbeddedPostgres(directory / "postgres", fsync=False))
        if shared_buffers is not None:
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(sql.SQL("ALTER SYSTEM SET shared_buffers = {}").format(shared_buffers))
            server.stop()
            server.start()
        made = {}
        for size in sizes:
            name = f"growth_{size}"
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}".encode())
            url = urlsplit(server.url)._replace(path=f"/{name}").geturl()
            made[size] = stack.enter_context(open_adapter(url))
            began = time.monotonic()
            _fill(url, size, messages)
            show(f"{size:,} sessions of {messages} messages, in {time.monotonic() - began:,.0f} s")

        def pages(size: int) -> int:
            with psycopg.connect(server.url, autocommit=True) as connection:
                query = "SELECT blks_read FROM pg_stat_database WHERE datname = %s"
                row = connection.execute(query, [f"growth_{size}"]).fetchone()
            assert row is not None
            return int(row[0])

        yield made, pages


def _fill(url: str, sessions: int, messages: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # each message has its session
        for first in range(0, sessions, 20_000):
            last = min(first + 20_000, sessions) - 1
            connection.execute(_FILL, {"first": first, "last": last, "messages": messages})
        connection.execute("VACUUM ANALYZE agent_sessions, agent_messages, agent_turns")
        connection.execute("CHECKPOINT")


def delete_batch(adapter: PersistenceAdapter) -> float:
    """Find and delete a batch as retention does; the milliseconds that took."""
    began = time.perf_counter()
    query = SessionQuery(
        status="completed", older_than=utcnow() - timedelta(days=30), order="oldest", limit=BATCH
    )
    found = adapter.find_sessions(query).items
    gone = adapter.delete_sessions([Target(session.id, session.version) for session in found])
    took = (time.perf_counter() - began) * 1000
    assert len(gone) == BATCH
    return took


def measure(
    adapters: dict[int, PersistenceAdapter], messages: int, rounds: int, pages: Callable[[int], int]
) -> list[Result]:
    """Take turns, and then batches, at all sizes."""
    chance = random.Random(7)
    sessions = {
        size: iter(chance.sample(range(1, size, 2), min(rounds + WARM_UP, size // 2))) for size in adapters
    }
    turns: dict[int, list[tuple[float, float]]] = {size: [] for size in adapters}
    orders = itertools.cycle(itertools.permutations(adapters))
    before = {size: _settled(pages, size) for size in adapters}
    for number in range(rounds + WARM_UP):
        for size in next(orders):
            load, commit = take_turn(adapters[size], f"s{next(sessions[size])}", WINDOW)
            if number >= WARM_UP:
                turns[size].append((load / 1000, commit / 1000))
    read = {size: _settled(pages, size) - before[size] for size in adapters}
    batches: dict[int, list[float]] = {size: [] for size in adapters}
    for number in range(BATCHES + 1):
        for size in next(orders):
            took = delete_batch(adapters[size])
            if number:
                batches[size].append(took)
    least = min(adapters)
    whole = {size: [sum(one) for one in some] for size, some in turns.items()}
    return [
        Result(
            size,
            messages,
            _median(whole[size]),
            _median([load for load, _ in turns[size]]),
            _median([commit for _, commit in turns[size]]),
            _ratio(whole[size], whole[least]),
            _median(batches[size]),
            _ratio(batches[size], batches[least]),
            round(read[size] / (rounds + WARM_UP), 1),
        )
        for size in adapters
    ]


def _settled(pages: Callable[[int], int], size: int) -> int:
    """The count once a server process has told of what it did, which it does within a second."""
    while True:
        count = pages(size)
        time.sleep(1.5)
        if pages(size) == count:
            return count


def _median(some: Sequence[float]) -> float:
    return round(statistics.median(some), 2)


def _ratio(some: Sequence[float], base: Sequence[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(some, base, strict=True)), 3)


def report(results: Sequence[Result]) -> Table:
    """A table for people."""
    title = (
        f"A turn, and a batch of {BATCH} sessions deleted, in ms; sessions of {results[0].messages} messages"
    )
    table = Table(title=title, title_justify="left", box=None)
    for name in ("sessions", "load", "commit", "turn", "ratio", "read", "batch", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in results:
        table.add_row(
            f"{each.sessions:,}",
            f"{each.load:.2f}",
            f"{each.commit:.2f}",
            f"{each.turn:.2f}",
            _coloured(each.turn_ratio),
            f"{each.read:.1f}",
            f"{each.batch:.1f}",
            _coloured(each.batch_ratio),
        )
    return table


def _coloured(ratio: float) -> str:
    return f"[{'green' if ratio <= GOAL else 'red'}]{ratio:.2f}[/]"


def main() -> None:
    """Run it; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument(
        "sizes", nargs="*", type=int, help="sessions, at least 1,000; 1,000 to 100,000 without any"
    )
    parser.add_argument("--full", action="store_true", help="up to 1,000,000 sessions")
    parser.add_argument("--rounds", type=int, default=200, help="turns measured at each size, at most 450")
    parser.add_argument("--messages", type=int, help="messages of each session; an even number")
    parser.add_argument("--shared-buffers", metavar="SIZE", help="PostgreSQL's, such as 2GB; 128MB without")
    given = parser.parse_args()
    console = Console(stderr=True, highlight=False, width=110)
    sizes = tuple(given.sizes) or ((*SIZES, MILLION) if given.full else SIZES)
    if min(sizes) < min(SIZES):
        parser.error(f"a size is at least {min(SIZES):,}, not {min(sizes):,}")
    messages = given.messages or (4 if given.full else 10)
    with stores(sizes, messages, lambda text: console.print(f"[dim]{text}[/]"), given.shared_buffers) as (
        adapters,
        pages,
    ):
        results = measure(adapters, messages, min(given.rounds, 450), pages)
    console.print(report(results))
    line = {
        "benchmark": "growth",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": given.rounds,
        "shared_buffers": given.shared_buffers or "128MB",
        "machine": machine(),
        "results": [asdict(each) for each in results],
    }
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
