"""What does the history of a turn cost, beside the bare driver and what others keep histories with?

A turn loads the state and the last 20 messages of a session and writes two messages and the new state. The
*floor* is that in as few calls of the driver as it takes, with nothing checked: psycopg in one transaction,
sqlite3 with `synchronous` NORMAL and FULL, redis-py in two round trips. Beside it inturn, the sessions of the
OpenAI Agents SDK (the last 20 items, or all of them, as they are by default) and LangGraph's checkpointers
(their default, and `durability="exit"`). All take turns in one run, in changing order, on the same PostgreSQL
and Valkey, or a SQLite file of their own; with fsync, so on a disk. Bytes are those of the write-ahead log,
written to files, or received by Valkey. Run it with `python -m benchmarks.peers_history`; the table goes to
standard error, one line of JSON to standard output. The peers are in an environment of their own, which
`make bench` makes; where it is not, they are passed over.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import secrets
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.history import SAID, make_session, take_turn
from benchmarks.peers.roster import PYTHON
from benchmarks.stores import written_to_files
from inturn.embedded.postgres import EmbeddedPostgres
from inturn.embedded.valkey import EmbeddedValkey
from inturn.persistence import open_adapter
from tests.nodes import ROOT

SIZES = (10, 100, 1_000)
LONGEST = 10_000
WINDOW = 20
STORES = ("postgresql", "sqlite", "redis")
STATE = json.dumps({"city": "Lagos", "route": "booking", "step": 3})

Turn = Callable[[], object]
"""Takes one turn in a session that is there."""


@dataclass(frozen=True)
class Layer:
    """A way to keep histories in `store`; `make` gives the turn of a new session with so many messages."""

    name: str
    store: str
    make: Callable[[int], Turn]


@dataclass(frozen=True)
class Result:
    """Medians of one layer with histories of one length: milliseconds, bytes written.

    `to_floor` is against the bare driver on the same store, of neighbours in time; for SQLite with FULL,
    which is the default of all here.
    """

    layer: str
    store: str
    size: int
    ms: float
    to_floor: float
    bytes: float


class Place:
    """The servers, and a directory for files."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inturn-benchmark-")))
        self._directory.chmod(0o711)
        self._postgres: str = stack.enter_context(EmbeddedPostgres(self._directory / "postgres")).url
        self.valkey: str = stack.enter_context(EmbeddedValkey(self._directory / "valkey")).url
        self._log = stack.enter_context(psycopg.connect(self._postgres, autocommit=True))
        self.redis = stack.enter_context(Redis.from_url(self.valkey))
        self.loop = asyncio.new_event_loop()
        stack.callback(self.loop.close)

    def file(self) -> str:
        """The path of a file that is not there yet."""
        return str(self._directory / f"{secrets.token_hex(4)}.db")

    def database(self) -> str:
        """The URL of a new database of PostgreSQL; two of those here would call their tables the same."""
        name = f"own_{secrets.token_hex(4)}"
        self._log.execute(f"CREATE DATABASE {name}".encode())
        return urlsplit(self._postgres)._replace(path=f"/{name}").geturl()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it to its end."""
        return self.loop.run_until_complete(coroutine)

    def written(self, store: str) -> int:
        """Bytes that were written to the store so far."""
        if store == "sqlite":
            return written_to_files()
        if store == "redis":
            about: Any = self.redis.info("stats")
            return int(about["total_net_input_bytes"])
        row = self._log.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
        ).fetchone()
        assert row is not None
        return int(row[0])


def floors(place: Place) -> list[Layer]:
    """The bare drivers."""
    connection = place.stack.enter_context(psycopg.connect(place.database()))
    connection.execute("CREATE TABLE s (id text PRIMARY KEY, state jsonb, version int)")
    connection.execute(
        "CREATE TABLE m (session_id text, seq int, role text, content text, PRIMARY KEY (session_id, seq))"
    )
    connection.commit()

    def postgres(size: int) -> Turn:
        name = secrets.token_hex(8)
        numbers = itertools.count(size)
        connection.execute("INSERT INTO s VALUES (%s, %s, 0)", (name, STATE))
        connection.execute(
            "INSERT INTO m SELECT %s, n, 'user', %s FROM generate_series(0, %s) AS n", (name, SAID, size - 1)
        )
        connection.commit()

        def turn() -> None:
            at = next(numbers) * 2
            with connection.transaction():
                connection.execute("SELECT state, version FROM s WHERE id = %s", (name,)).fetchone()
                last = "SELECT role, content FROM m WHERE session_id = %s ORDER BY seq DESC LIMIT 20"
                connection.execute(last, (name,)).fetchall()
                both = "INSERT INTO m VALUES (%s, %s, 'user', %s), (%s, %s, 'assistant', %s)"
                connection.execute(both, (name, at, SAID, name, at + 1, SAID))
                connection.execute(
                    "UPDATE s SET state = %s, version = version + 1 WHERE id = %s", (STATE, name)
                )

        return turn

    def sqlite(mode: str) -> Callable[[int], Turn]:
        def make(size: int) -> Turn:
            own = sqlite3.connect(place.file(), isolation_level=None)
            place.stack.callback(own.close)
            own.execute("PRAGMA journal_mode = WAL")
            own.execute(f"PRAGMA synchronous = {mode}")
            own.execute("CREATE TABLE s (id TEXT PRIMARY KEY, state TEXT, version INT)")
            own.execute("CREATE TABLE m (session_id TEXT, seq INT, role TEXT, content TEXT)")
            own.execute("CREATE UNIQUE INDEX i ON m (session_id, seq)")
            own.execute("BEGIN")
            own.execute("INSERT INTO s VALUES ('s', ?, 0)", (STATE,))
            own.executemany("INSERT INTO m VALUES ('s', ?, 'user', ?)", [(n, SAID) for n in range(size)])
            own.execute("COMMIT")
            numbers = itertools.count(size)

            def turn() -> None:
                at = next(numbers) * 2
                own.execute("BEGIN IMMEDIATE")
                state, version = own.execute("SELECT state, version FROM s WHERE id = 's'").fetchone()
                json.loads(state)
                own.execute(
                    "SELECT role, content FROM m WHERE session_id = 's' ORDER BY seq DESC LIMIT 20"
                ).fetchall()
                both = "INSERT INTO m VALUES ('s', ?, 'user', ?), ('s', ?, 'assistant', ?)"
                own.execute(both, (at, SAID, at + 1, SAID))
                own.execute("UPDATE s SET state = ?, version = ? WHERE id = 's'", (STATE, version + 1))
                own.execute("COMMIT")

            return turn

        return make

    def redis(size: int) -> Turn:
        name = secrets.token_hex(8)
        message = json.dumps({"role": "user", "content": SAID})
        for start in range(0, size, 1000):
            place.redis.rpush(f"m:{name}", *[message] * min(1000, size - start))
        place.redis.hset(f"s:{name}", mapping={"state": STATE, "version": 0})

        def turn() -> None:
            reading: Any = place.redis.pipeline(transaction=False)
            reading.hmget(f"s:{name}", "state", "version").lrange(f"m:{name}", -20, -1)
            (state, version), messages = reading.execute()
            json.loads(state)
            [json.loads(each) for each in messages]
            writing: Any = place.redis.pipeline(transaction=True)
            writing.rpush(f"m:{name}", message, message)
            writing.hset(f"s:{name}", mapping={"state": STATE, "version": int(version) + 1})
            writing.execute()

        return turn

    return [
        Layer("floor", "postgresql", postgres),
        Layer("floor", "sqlite", sqlite("FULL")),
        Layer("floor, NORMAL", "sqlite", sqlite("NORMAL")),
        Layer("floor", "redis", redis),
    ]


def inturn(place: Place) -> list[Layer]:
    """inturn's adapters."""

    def layer(store: str, url: str) -> Layer:
        adapter = place.stack.enter_context(open_adapter(url))

        def make(size: int) -> Turn:
            session_id = make_session(adapter, size)
            return lambda: take_turn(adapter, session_id, WINDOW)

        return Layer("inturn", store, make)

    urls = (place.database(), f"sqlite:///{place.file()}", place.valkey)
    return [layer(store, url) for store, url in zip(STORES, urls, strict=True)]


def agents_sdk(place: Place) -> list[Layer]:
    """Sessions of the OpenAI Agents SDK."""
    from agents import SQLiteSession
    from agents.extensions.memory import RedisSession, SQLAlchemySession
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(place.database().replace("postgresql://", "postgresql+asyncpg://"))
    place.stack.callback(lambda: place.run(engine.dispose()))
    opened: dict[str, Callable[[str], Any]] = {
        "postgresql": lambda name: SQLAlchemySession(name, engine=engine, create_tables=True),
        "sqlite": lambda name: SQLiteSession(name, place.file()),
        "redis": lambda name: RedisSession.from_url(name, url=place.valkey),
    }

    def layer(store: str, limit: int | None) -> Layer:
        def make(size: int) -> Turn:
            session = opened[store](secrets.token_hex(8))
            item = {"role": "user", "content": SAID}
            for start in range(0, size, 1000):
                place.run(session.add_items([item] * min(1000, size - start)))

            async def turn() -> None:
                await session.get_items(limit=limit)
                await session.add_items([item, {"role": "assistant", "content": SAID}])

            return lambda: place.run(turn())

        return Layer(f"Agents SDK, {'all' if limit is None else f'last {limit}'}", store, make)

    return [layer(store, limit) for store in STORES for limit in (WINDOW, None)]


def langgraph(place: Place) -> list[Layer]:
    """LangGraph with one node, and its checkpointers."""
    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.checkpoint.postgres import PostgresSaver
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import END, START, MessagesState, StateGraph

    def answer(_: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(SAID)]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)

    def layer(store: str, saver: Any, durability: str | None) -> Layer:
        graph = builder.compile(checkpointer=saver)
        options: dict[str, Any] = {} if durability is None else {"durability": durability}

        def make(size: int) -> Turn:
            thread = {"configurable": {"thread_id": secrets.token_hex(8)}}
            said = [HumanMessage(SAID, id=f"m{number}") for number in range(size)]
            graph.update_state(thread, {"messages": said}, as_node="answer")
            return lambda: graph.invoke({"messages": [HumanMessage(SAID)]}, thread, **options)

        return Layer(f"LangGraph{'' if durability is None else f', {durability}'}", store, make)

    in_postgres = place.stack.enter_context(PostgresSaver.from_conn_string(place.database()))
    in_postgres.setup()
    in_sqlite = place.stack.enter_context(SqliteSaver.from_conn_string(place.file()))
    return [
        layer(store, saver, durability)
        for store, saver in (("postgresql", in_postgres), ("sqlite", in_sqlite))
        for durability in (None, "exit")
    ]


def measure(
    sizes: tuple[int, ...], rounds: int, show: Callable[[str], None], *, alone: bool = False
) -> list[Result]:
    """Take turns with all layers and lengths, in changing order."""
    with ExitStack() as stack:
        place = Place(stack)
        layers = floors(place) + inturn(place)
        for more in () if alone else (agents_sdk, langgraph):
            try:
                layers += more(place)
            except ImportError as error:
                show(f"{more.__name__}: passed over: {error}")
        turns = [(layer, size, layer.make(size)) for size in sizes for layer in layers]
        times: dict[tuple[str, str, int], list[float]] = {}
        sent: dict[tuple[str, str, int], list[int]] = {}
        for number in range(rounds + 2):  # the first two find caches cold, and statements not prepared
            show(f"round {number} of {rounds + 1}")
            start = number * 7 % len(turns)
            for layer, size, turn in turns[start:] + turns[:start]:
                before = place.written(layer.store)
                began = time.perf_counter()
                turn()
                took = (time.perf_counter() - began) * 1000
                if number > 1:
                    key = (layer.name, layer.store, size)
                    times.setdefault(key, []).append(took)
                    sent.setdefault(key, []).append(place.written(layer.store) - before)
        results = []
        for (name, store, size), some in times.items():
            floor = times["floor", store, size]
            results.append(
                Result(
                    name,
                    store,
                    size,
                    round(statistics.median(some), 2),
                    round(statistics.median(own / bare for own, bare in zip(some, floor, strict=True)), 2),
                    statistics.median(sent[name, store, size]),
                )
            )
        return sorted(
            results, key=lambda each: (STORES.index(each.store), each.layer != "floor", each.layer, each.size)
        )


def report(results: list[Result], sizes: tuple[int, ...]) -> Table:
    """A table for people: a line for each layer."""
    table = Table(
        title="A turn: ms (times the floor) at each length of the history", title_justify="left", box=None
    )
    for name in (
        "store",
        "",
        *(f"{size:,}" for size in sizes),
        "longest to shortest",
        "bytes at the longest",
    ):
        table.add_column(name, justify="left" if name in ("store", "") else "right")
    for (store, name), some in itertools.groupby(results, key=lambda each: (each.store, each.layer)):
        found = {each.size: each for each in some}
        table.add_row(
            store,
            name,
            *(f"{found[size].ms:.2f} ({found[size].to_floor:.1f})" for size in sizes),
            f"{found[sizes[-1]].ms / found[sizes[0]].ms:.2f}",
            f"{found[sizes[-1]].bytes:,.0f}",
        )
    return table


def main() -> None:
    """Run it; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers_history", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="turns of each layer at each length")
    parser.add_argument("--full", action="store_true", help="histories of 10,000 messages too")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    given = parser.parse_args()
    if not given.alone and find_spec("agents") is None and Path(PYTHON).exists():
        sys.exit(subprocess.call([PYTHON, "-m", "benchmarks.peers_history", *sys.argv[1:]], cwd=ROOT))
    sizes = (*SIZES, LONGEST) if given.full else SIZES
    console = Console(stderr=True, highlight=False, width=120)
    results = measure(sizes, given.rounds, lambda text: console.print(f"[dim]{text}[/]"), alone=given.alone)
    console.print(report(results, sizes))
    line = {
        "benchmark": "peers_history",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": given.rounds,
        "results": [asdict(each) for each in results],
    }
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
