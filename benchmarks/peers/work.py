"""Work: the turn that every peer takes, the turns that are planned, and the gate they all wait at.

A turn selects its session and the last 20 of its messages, waits as long as the model would take, and writes
two messages of about 120 characters and the session, a JSON object of about 500 bytes, in one transaction.
When it began and when it was about to commit stands in the messages, so that order, overlap and loss are
judged afterwards, from the table alone.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any, NamedTuple

SCHEMA = """
CREATE TABLE sessions (
    id text PRIMARY KEY,
    state jsonb NOT NULL,
    version int NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE messages (
    id bigserial PRIMARY KEY,
    session_id text NOT NULL,
    number int NOT NULL,
    role text NOT NULL,
    content text NOT NULL,
    began float8,
    ended float8
);
CREATE INDEX messages_session ON messages (session_id, id);
"""
SELECT_SESSION = "SELECT state, version FROM sessions WHERE id = %s"
SELECT_MESSAGES = "SELECT id, role, content FROM messages WHERE session_id = %s ORDER BY id DESC LIMIT 20"
INSERT_MESSAGES = (
    "INSERT INTO messages (session_id, number, role, content, began, ended)"
    " VALUES (%s, %s, 'user', %s, %s, %s), (%s, %s, 'assistant', %s, %s, %s)"
)
UPDATE_SESSION = "UPDATE sessions SET state = %s, version = %s, updated_at = now() WHERE id = %s"

HISTORY = 20
"""Messages that each session has before the first turn."""


class Planned(NamedTuple):
    """One turn: the `number`-th of its session, with a model that takes `latency` seconds."""

    session_id: str
    number: int
    latency: float


class Plan(NamedTuple):
    """Which turns are enqueued, and in which order.

    `interleaved`: one turn of each session after the other. `bursts`: all turns of one session back to back.
    `hot`: one session with `hot` turns first, and then the others, interleaved; with no `hot` turns, or no
    `sessions`, only the rest of them.
    """

    kind: str
    latency: float
    sessions: int
    turns: int
    hot: int = 0

    def all(self) -> list[Planned]:
        """The turns, in order of enqueueing."""
        names = [f"s{number:05d}" for number in range(self.sessions)]
        hot = [Planned("hot", number, self.latency) for number in range(self.hot)]
        if self.kind == "bursts":
            return hot + [
                Planned(name, number, self.latency) for name in names for number in range(self.turns)
            ]
        return hot + [Planned(name, number, self.latency) for number in range(self.turns) for name in names]


def planned() -> list[Planned]:
    """The turns of the plan in the environment."""
    return Plan(*json.loads(os.environ["BENCH_PLAN"])).all()


def content(role: str, number: int) -> str:
    """A message of about 120 characters; it begins with its turn's number."""
    words = "could you tell me whether the table by the window is free on friday evening at half past seven"
    return f"{number:05d} {role}: {words[number % 7 :]}, please".ljust(120, ".")


def first_state() -> dict[str, Any]:
    """What a session holds before its first turn: about 500 bytes."""
    return {"last": -1, "turns": 0, "profile": {"name": "user", "language": "en"}, "notes": "x" * 400}


def next_state(state: dict[str, Any], number: int) -> dict[str, Any]:
    """What it holds after a turn."""
    return {**state, "last": number, "turns": state["turns"] + 1}


class Gate:
    """Holds the first turn of every slot until all slots have one: how a worker starts is not measured."""

    def __init__(self) -> None:
        self._folder = os.environ.get("BENCH_GATE", "")
        self._is_open = not self._folder

    def arrive(self) -> bool:
        """Note that a slot is here; False: nobody has to wait any more."""
        if self._is_open:
            return False
        name = f"{self._folder}/{os.getpid()}.{threading.get_ident()}.{time.monotonic_ns()}"
        with open(name, "w"):
            return True

    def opened(self) -> bool:
        """Whether it is open now."""
        self._is_open = self._is_open or os.path.exists(f"{self._folder}/go")
        return self._is_open

    def wait(self) -> None:
        """Wait for it to open."""
        if self.arrive():
            while not self.opened():
                time.sleep(0.005)


gate = Gate()


class Database:
    """The pool of connections that one process of a peer works with."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._lock = threading.Lock()

    def pool(self) -> Any:
        """The pool, full from the beginning."""
        with self._lock:
            if self._pool is None:
                from psycopg_pool import ConnectionPool

                size = int(os.environ.get("BENCH_CONNECTIONS", "16"))
                pool = ConnectionPool(
                    os.environ["BENCH_DATABASE"],
                    min_size=size,
                    max_size=size,
                    kwargs={"autocommit": True},
                    open=True,
                )
                pool.wait(30)
                self._pool = pool
        return self._pool


database = Database()


def take(session_id: str, number: int, latency: float) -> None:
    """Take one turn."""
    from psycopg.types.json import Jsonb

    gate.wait()
    began = time.time()
    pool = database.pool()
    with pool.connection() as connection:
        state, version = connection.execute(SELECT_SESSION, (session_id,)).fetchone()
        connection.execute(SELECT_MESSAGES, (session_id,)).fetchall()
    if latency:
        time.sleep(latency)
    with pool.connection() as connection, connection.transaction():
        connection.execute(INSERT_MESSAGES, rows(session_id, number, began))
        new = Jsonb(next_state(state, number))
        connection.execute(UPDATE_SESSION, (new, version + 1, session_id))


def rows(session_id: str, number: int, began: float) -> tuple[Any, ...]:
    """The parameters of `INSERT_MESSAGES`, for a turn that is about to commit."""
    ended = time.time()
    return (
        *(session_id, number, content("user", number), began, ended),
        *(session_id, number, content("assistant", number), began, ended),
    )


_async_pool: Any = None


async def take_async(session_id: str, number: int, latency: float) -> None:
    """The same for a queue that runs coroutines."""
    import asyncio

    from psycopg.types.json import Jsonb

    if gate.arrive():
        while not gate.opened():
            await asyncio.sleep(0.005)
    pool = await _opened()
    began = time.time()
    async with pool.connection() as connection:
        state, version = await (await connection.execute(SELECT_SESSION, (session_id,))).fetchone()
        await (await connection.execute(SELECT_MESSAGES, (session_id,))).fetchall()
    if latency:
        await asyncio.sleep(latency)
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(INSERT_MESSAGES, rows(session_id, number, began))
        new = Jsonb(next_state(state, number))
        await connection.execute(UPDATE_SESSION, (new, version + 1, session_id))


async def _opened() -> Any:
    global _async_pool
    if _async_pool is None:
        from psycopg_pool import AsyncConnectionPool

        size = int(os.environ.get("BENCH_CONNECTIONS", "16"))
        _async_pool = AsyncConnectionPool(
            os.environ["BENCH_DATABASE"],
            min_size=size,
            max_size=size,
            kwargs={"autocommit": True},
            open=False,
        )
        await _async_pool.open()
    return _async_pool


def redis_url(database: int) -> str:
    """One of the databases of the Redis that the queue is in."""
    return f"{os.environ['BENCH_REDIS']}/{database}"
