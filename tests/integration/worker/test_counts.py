"""What a turn costs, in commands, statements, round trips and messages: whoever changes it sees so here.

No figure depends on the time or on the machine: sweeps and renewals are far apart, and what Celery does of
its own accord (it asks for messages, keeps them until they are done, tells monitors) is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pytest_celery import CeleryTestWorker
from redis import Redis

from inturn.client import Client, TurnHandle
from inturn.settings import load_settings
from tests.counted_agents import let_go
from tests.counting import CountingProxy, PostgresReader, RedisReader, ScriptWatch
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process


@dataclass(frozen=True)
class Cost:
    """Redis commands (scripts by their names) and SQL statements, each with their round trips; and the
    commands that Redis has run inside of scripts."""

    redis: dict[str, int]
    trips: int
    inside: int
    sql: dict[str, int] = field(default_factory=dict)
    sql_trips: int = 0


OFFER = {"message to turns": 1, "offer": 1}

TAKING = {
    "first turn of a session": Cost(OFFER, 2, 13),
    "turn": Cost(OFFER, 2, 13),
    "save_session": Cost(OFFER, 2, 13),
    "streamed turn": Cost(OFFER, 2, 13),
    "burst of ten": Cost({**OFFER, "offer": 10}, 11, 130),
}
"""What it costs to take turns in."""

RUN = {"begin": 1, "finish": 1}
COMMIT = {"SELECT": 1, "WITH": 1}

RUNNING = {
    "first turn of a session": Cost(RUN, 2, 37, {"SELECT": 2, "WITH": 1}, 3),
    "turn": Cost(RUN, 2, 37, COMMIT, 2),
    "save_session": Cost(RUN, 2, 37, COMMIT, 2),
    "streamed turn": Cost({**RUN, "emit": 2}, 4, 45, COMMIT, 2),
    "burst of ten": Cost(
        {"begin": 2, "finish": 10, "message to turns": 1}, 13, 298, {"SELECT": 4, "WITH": 10}, 14
    ),
}
"""What it costs a worker to run them: eight turns of a session in one go. The first one loads it, and the
second one looks up its own ID with those behind it."""

CASES: dict[str, Callable[[Client, str], list[TurnHandle]]] = {
    "first turn of a session": lambda client, session: [client.respond(session, "hello")],
    "turn": lambda client, session: [client.respond(session, "hello")],
    "save_session": lambda client, session: [client.save_session(session, data={"city": "Lagos"})],
    "streamed turn": lambda client, session: [client.respond(session, session, stream=True)],
    "burst of ten": lambda client, session: [client.respond(session, "hello") for _ in range(10)],
}

RARE = {
    "sweep_seconds": 3600.0,
    "grace_seconds": 7200.0,
    "renew_seconds": 3600.0,
    "lease_seconds": 7200.0,
    "drive_seconds": 3600.0,
}
_LUA = {
    file.name.removesuffix(".lua"): file.read_text() for file in (files("inturn.turns") / "lua").iterdir()
}
_SCRIPTS = {
    hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(): name
    for name, own in _LUA.items()
    for text in (own, _LUA["common"] + own)
}
_OF_CELERY = ("BRPOP", "MULTI", "EXEC", "PUBLISH", "SUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE")
_KEYS_OF_CELERY = ("unacked", "_kombu")
_OF_CONNECTIONS = ("HELLO", "AUTH", "CLIENT", "SELECT", "PING", "INFO", "SCRIPT")


def counted_as(words: list[str]) -> str | None:
    """How a Redis command is counted."""
    command, first, _, key, *_ = [*words, "", "", ""]
    is_script = command in ("EVALSHA", "EVAL")
    if command in (*_OF_CELERY, *_OF_CONNECTIONS) or (key if is_script else first).startswith(
        _KEYS_OF_CELERY
    ):
        return None
    if command == "LPUSH":
        return f"message to {first.partition(chr(6))[0]}"
    return _SCRIPTS.get(first, "another script") if is_script else command


class Counts:
    """What a producer, and a worker at its side, ask of a Redis and of a database."""

    def __init__(self, stack: ExitStack, redis_url: str, database_url: str) -> None:
        def proxy(url: str, reader: Callable[[], RedisReader | PostgresReader]) -> tuple[CountingProxy, str]:
            parts = urlsplit(url)
            made = stack.enter_context(CountingProxy(parts.port or 0, reader))
            host = parts.netloc.rpartition(":")[0]
            return made, parts._replace(netloc=f"{host}:{made.port}").geturl()

        self._producer, self.producer_redis = proxy(redis_url, lambda: RedisReader(counted_as))
        self._worker, self.worker_redis = proxy(redis_url, lambda: RedisReader(counted_as))
        self._database, self.worker_database = proxy(database_url, PostgresReader)
        self.redis = stack.enter_context(
            Redis.from_url(redis_url, decode_responses=True, socket_timeout=None)
        )
        self._inside = stack.enter_context(ScriptWatch(self.redis, counted_as))

    def taking(self) -> Cost:
        """What the producer has asked for since the last time."""
        calls, trips = self._producer.take()
        return Cost(calls, trips, sum(self._inside.take().values()))

    def running(self) -> Cost:
        """The same of the worker."""
        calls, trips = self._worker.take()
        statements, sql_trips = self._database.take()
        return Cost(calls, trips, sum(self._inside.take().values()), statements, sql_trips)


@pytest.fixture
def counts(broker_url: str, store_url: str) -> Iterator[Counts]:
    with ExitStack() as stack:
        yield Counts(stack, broker_url, store_url)


@pytest.fixture
def worker(counts: Counts, start_worker: StartWorker) -> CeleryTestWorker:
    return start_worker(
        concurrency=1,
        app="tests.counted_app",
        REDIS_URL=counts.worker_redis,
        DATABASE_URL=counts.worker_database,
        INTURN_AGENT="tests.counted_agents:agent",
        **{f"INTURN_{name.upper()}": str(value) for name, value in RARE.items()},
    )


@pytest.mark.parametrize("store_kind", ["postgresql"])
def test_what_a_turn_costs_is_what_it_did(worker: CeleryTestWorker, counts: Counts, journal: Path) -> None:
    taking: dict[str, Cost] = {}
    running: dict[str, Cost] = {}
    with Client(load_settings(redis_url=counts.producer_redis, **RARE)) as client:
        # Twice: after that all connections are there, scripts are loaded and statements are prepared.
        for session_id in ("warm", "measured"):
            for name, enqueue in CASES.items():
                worker.kill("SIGSTOP")  # so all turns of a burst are there when it looks
                counts.taking()
                counts.running()
                handles = enqueue(client, session_id)
                taking[name] = counts.taking()
                worker.kill("SIGCONT")
                if name == "streamed turn":
                    next(handles[0].stream(timeout=60))
                    let_go(journal, session_id)
                for handle in handles:
                    handle.get(timeout=60)
                wait_until(lambda: not counts.redis.exists("unacked"), what="the end of the last message")
                running[name] = counts.running()

    assert taking == TAKING
    assert running == RUNNING
