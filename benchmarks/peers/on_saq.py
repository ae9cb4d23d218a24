"""SAQ on PostgreSQL: of the jobs with one `group_key` only one is said to be active at a time."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from saq import Queue, Worker

from benchmarks.peers import work


async def turn(_: Any, *, session_id: str, number: int, latency: float) -> None:
    await work.take_async(session_id, number, latency)


def _queue() -> Queue:
    return Queue.from_url(os.environ["BENCH_QUEUE_DATABASE"], min_size=1, max_size=20)


def setup() -> None:
    async def create() -> None:
        queue = _queue()
        await queue.connect()
        await queue.disconnect()

    asyncio.run(create())


def enqueue(turns: list[work.Planned]) -> None:
    async def put() -> None:
        queue = _queue()
        await queue.connect()
        for session_id, number, latency in turns:
            await queue.enqueue(
                "turn",
                session_id=session_id,
                number=number,
                latency=latency,
                group_key=session_id,
                timeout=0,
                retries=1,
            )
        await queue.disconnect()

    asyncio.run(put())


def run() -> None:
    async def serve() -> None:
        queue = _queue()
        await queue.connect()
        await Worker(queue, functions=[turn], concurrency=16).start()

    asyncio.run(serve())
