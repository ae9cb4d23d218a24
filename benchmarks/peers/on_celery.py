"""Celery, doing the same work: without a lock, with a lock that waits, or with one that has the task retried.

`BENCH_VARIANT` is `unlocked`, `lock` or `retry`. With `BENCH_PROCESSOR` the worker keeps to that processor.
"""

from __future__ import annotations

import os
from typing import Any

import redis
from celery import Celery

from benchmarks.peers import work

VARIANT = os.environ.get("BENCH_VARIANT", "unlocked")
LOCK_SECONDS = 60

if processor := os.environ.get("BENCH_PROCESSOR"):
    os.sched_setaffinity(0, {int(processor)})  # before there are threads, which inherit it

app = Celery("peers", broker=work.redis_url(0))
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
locks = redis.Redis.from_url(work.redis_url(2))


@app.task(name="turn", bind=True, max_retries=None)
def turn(self: Any, session_id: str, number: int, latency: float) -> None:
    work.gate.wait()
    if VARIANT == "unlocked":
        work.take(session_id, number, latency)
    elif VARIANT == "lock":
        # redis-py's own: it polls every 0.1 s, and its slot waits.
        with locks.lock(f"lock:{session_id}", timeout=LOCK_SECONDS):
            work.take(session_id, number, latency)
    else:
        lock = locks.lock(f"lock:{session_id}", timeout=LOCK_SECONDS)
        if not lock.acquire(blocking=False):
            raise self.retry(countdown=0.1)
        try:
            work.take(session_id, number, latency)
        finally:
            lock.release()


def enqueue(turns: list[work.Planned]) -> None:
    for each in turns:
        turn.delay(*each)
