"""A worker on one processor: it takes its turns there."""

from __future__ import annotations

import os

import pytest

from inturn.client import Client
from tests.integration.worker.conftest import StartWorker

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
        reason="needs two processors",
    ),
]


@pytest.mark.parametrize("chosen", [True, False])
def test_a_worker_keeps_to_one_processor_if_it_is_told_to(
    client: Client, start_worker: StartWorker, chosen: bool
) -> None:
    worker = start_worker(INTURN_ONE_PROCESSOR=str(chosen))

    for number in range(4):
        assert client.respond(f"s{number}", "hello").get(timeout=60).message

    threads = [int(name) for name in os.listdir(f"/proc/{worker.container.pid}/task")]
    processors = {frozenset(os.sched_getaffinity(thread)) for thread in threads}
    assert processors == {next(iter(processors))}
    assert (len(next(iter(processors))) == 1) is chosen
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
