"""A broker that was away: workers look for it as often at the end as at the beginning."""

from __future__ import annotations

import pytest

from inturn.client import Client
from tests.integration.worker.conftest import StartWorker
from tests.nodes import LocalRedis
from tests.waiting import wait_until

pytestmark = pytest.mark.process


def test_the_waits_for_a_lost_broker_do_not_grow(
    start_worker: StartWorker, client: Client, default_redis_broker: LocalRedis
) -> None:
    worker = start_worker()
    assert client.respond("s", "before").get(timeout=30).message == "you said: before"

    server = default_redis_broker._container
    server.kill("SIGKILL")
    wait_until(lambda: worker.logs().count("Trying again in") > 2, timeout=60, what="three tries")
    server.start()

    assert worker.logs().count("Trying again in 2.00 seconds") > 2
    assert client.respond("s", "after").get(timeout=60).message == "you said: after"
