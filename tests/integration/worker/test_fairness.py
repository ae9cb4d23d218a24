"""One slow session with many waiting turns holds up nobody else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from inturn.client import Client
from tests.agents import read_journal
from tests.integration.worker.conftest import StartWorker

pytestmark = pytest.mark.process


@pytest.mark.long
def test_a_hundred_waiting_turns_delay_no_other_session_by_more_than_one_turn(
    start_worker: StartWorker, client: Client, journal: Path
) -> None:
    start_worker(concurrency=4)
    hot = [client.respond("hot", f"hot {number} sleep 0.1") for number in range(100)]
    asked = time.monotonic()
    others = [client.respond(f"other-{number}", f"other {number}") for number in range(20)]

    assert len(list(client.collect(others, timeout=60))) == 20
    calls = read_journal(journal)
    first_other = next(call for call in calls if call.text.startswith("other 0"))
    delayed_by = [c for c in calls if c.text.startswith("hot") and asked < c.started < first_other.started]
    assert len(delayed_by) <= 2, "another session waited for more than one of the hot session's turns"
    assert sum(handle.status() == "done" for handle in hot) < 50, "the hot session was not slow: no proof"
    assert len(list(client.collect(hot, timeout=60))) == 100


def test_a_hot_session_yields_to_those_that_wait_for_its_slot(
    start_worker: StartWorker, client: Client, journal: Path
) -> None:
    hot = [client.respond("hot", f"hot {number}") for number in range(30)]
    other = client.respond("other", "other")
    start_worker(concurrency=1, INTURN_DRIVE_TURNS="5")

    assert len(list(client.collect([*hot, other], timeout=60))) == 31
    order = [call.text for call in read_journal(journal)]
    assert order.index("other") == 5
