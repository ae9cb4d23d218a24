"""RQ: each turn is a job that depends on the one before it in its session; 16 workers that do not fork."""

from __future__ import annotations

import os
import sys
from typing import Any

import redis
from rq import Queue

from benchmarks.peers import work


def turn(session_id: str, number: int, latency: float) -> None:
    work.take(session_id, number, latency)


def enqueue(turns: list[work.Planned]) -> None:
    queue = Queue("turns", connection=redis.Redis.from_url(work.redis_url(0)))
    last: dict[str, Any] = {}
    for session_id, number, latency in turns:
        last[session_id] = queue.enqueue(
            "benchmarks.peers.on_rq.turn", session_id, number, latency, depends_on=last.get(session_id)
        )


def run() -> None:
    options = ["-n", "16", "-w", "rq.worker.SimpleWorker", "-u", work.redis_url(0), "-q"]
    options += ["--logging-level", "WARNING"]
    os.execv(sys.executable, [sys.executable, "-m", "rq.cli", "worker-pool", "turns", *options])
