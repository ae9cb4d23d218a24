"""What an idle worker asks of Redis, beside what Celery does of its own accord."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.counting import CountingProxy, RedisReader
from tests.integration.worker.conftest import StartWorker
from tests.integration.worker.test_counts import counted_as
from tests.waiting import wait_until

pytestmark = pytest.mark.process

SWEEPS = 20
_OF_CELERY = (
    *("BRPOP", "PUBLISH", "SUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE"),
    "PING",  # redis-py asks after a connection that nobody has used for half a minute
)


def named(words: list[str]) -> str | None:
    """As a turn's commands are counted, and what makes a connection, or asks the broker, as well."""
    command, first, *_ = [*words, "", ""]
    if command in _OF_CELERY or first.startswith("unacked"):
        return None
    return counted_as(words) or command


@pytest.fixture
def proxy(broker_url: str) -> Iterator[CountingProxy]:
    with CountingProxy(urlsplit(broker_url).port or 0, lambda: RedisReader(named)) as made:
        yield made


def test_an_idle_worker_asks_for_all_buckets_at_once_and_for_nothing_else(
    proxy: CountingProxy, broker_url: str, start_worker: StartWorker
) -> None:
    parts = urlsplit(broker_url)
    url = parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}").geturl()
    calls: Counter[str] = Counter()
    round_trips = 0

    def is_idle() -> bool:
        """It has swept so often and done nothing else, once what it does at its beginning was done."""
        nonlocal round_trips
        taken, trips = proxy.take()
        calls.update(taken)
        round_trips += trips
        if calls["due"] < SWEEPS:
            return False
        if set(calls) == {"due"}:
            return True
        print(calls)  # pytest shows it where the test fails
        calls.clear()
        round_trips = 0
        return False

    start_worker(concurrency=1, REDIS_URL=url, INTURN_SWEEP_SECONDS="0.2")
    wait_until(is_idle, timeout=60, what="sweeps, and nothing else")

    assert round_trips == calls["due"], "one script for each, of the turns or of the deliveries"
