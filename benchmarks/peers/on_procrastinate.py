"""procrastinate: jobs with a `lock` run one after another; workers are asynchronous.

`BENCH_POLL` is how often a worker looks for jobs by itself, in seconds (procrastinate's own default is 5).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import procrastinate

from benchmarks.peers import work

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_QUEUE_DATABASE"]))


@app.task(name="turn")
async def turn(session_id: str, number: int, latency: float) -> None:
    await work.take_async(session_id, number, latency)


@contextmanager
def opened() -> Iterator[procrastinate.App]:
    connector = procrastinate.SyncPsycopgConnector(conninfo=os.environ["BENCH_QUEUE_DATABASE"])
    with app.replace_connector(connector) as replaced, replaced.open():
        yield replaced


def setup() -> None:
    with opened() as here:
        here.schema_manager.apply_schema()


def enqueue(turns: list[work.Planned]) -> None:
    with opened():
        for session_id, number, latency in turns:
            deferrer = turn.configure(lock=session_id)
            deferrer.defer(session_id=session_id, number=number, latency=latency)


def run() -> None:
    async def serve() -> None:
        async with app.open_async():
            poll = float(os.environ.get("BENCH_POLL", "5"))
            await app.run_worker_async(concurrency=16, fetch_job_polling_interval=poll)

    asyncio.run(serve())
