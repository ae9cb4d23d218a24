"""Too many turns in all: the workers' sweepers see it, and refuse what is new until there is room."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery

from inturn.client import Client
from inturn.errors import OverloadedError
from inturn.turns import Mailbox
from tests.agents import let_go
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process


def test_producers_that_know_no_limit_are_refused_by_the_workers_until_there_is_room(
    start_worker: StartWorker,
    client: Client,
    mailbox: Mailbox,
    broker_url: str,
    journal: Path,
    fast: dict[str, str],
) -> None:
    start_worker(**fast, INTURN_MAX_WAITING_TOTAL="3")
    handles = [client.respond(f"s{number}", "pause", stream=True, turn_id="1") for number in range(3)]

    def is_refused() -> bool:
        try:
            handles.append(client.respond("s0", "pause", stream=True))
        except OverloadedError:
            return True
        return False

    wait_until(is_refused)
    assert not client.respond("s0", "pause", stream=True, turn_id="1").accepted
    with Celery(broker=broker_url, backend=broker_url) as bare:
        result = bare.send_task("respond", kwargs={"session_id": "bare", "message": "hello"})
        with pytest.raises(Exception, match="OverloadedError"):
            result.get(timeout=30)

    let_go(journal)
    for handle in handles:
        assert handle.get(timeout=60).message == "you said: pause"
    wait_until(lambda: not is_refused())
    assert handles[-1].get(timeout=60).message == "you said: pause"
    wait_until(lambda: mailbox.depth() == 0)
