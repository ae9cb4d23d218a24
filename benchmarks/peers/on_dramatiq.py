"""dramatiq: a rate limiter of one at a time; a turn that finds it taken is retried."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.rate_limits.backends import RedisBackend

from benchmarks.peers import work

dramatiq.set_broker(RedisBroker(url=work.redis_url(0)))
locks = RedisBackend(url=work.redis_url(2))


@dramatiq.actor(actor_name="turn", max_retries=1_000_000, min_backoff=100, max_backoff=100)
def turn(session_id: str, number: int, latency: float) -> None:
    work.gate.wait()
    with ConcurrentRateLimiter(locks, f"lock:{session_id}", limit=1, ttl=60_000).acquire():
        work.take(session_id, number, latency)


def enqueue(turns: list[work.Planned]) -> None:
    for each in turns:
        turn.send(*each)
