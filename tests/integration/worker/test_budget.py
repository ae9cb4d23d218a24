"""The shared budget of the model: turns wait for it, over all workers, in their order, and none fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from inturn.client import Client
from inturn.settings import Settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from tests.agents import read_journal
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

WINDOW = 3
MOST = 5


def test_turns_beyond_the_budget_wait_for_it_whichever_worker_has_them(
    start_worker: StartWorker, client: Client, journal: Path, fast: dict[str, str]
) -> None:
    limit = {"INTURN_MODEL_REQUESTS": f"{MOST}/{WINDOW} seconds", "INTURN_RETRY_MAX_SECONDS": "1"}
    # With one attempt each, a wait that counted as one would be a failure.
    workers = [start_worker(concurrency=1, **fast, **limit, INTURN_MAX_ATTEMPTS="1") for _ in range(2)]
    # One worker alone is too slow for the first of them.
    handles = [client.respond(f"s{number % 6}", f"{number} sleep 0.5") for number in range(12)]

    for number, handle in enumerate(handles):
        assert handle.get(timeout=120).message == f"you said: {number} sleep 0.5"

    calls = read_journal(journal)
    assert len(calls) == len(handles), "no turn was begun that was then refused"
    for session in range(6):
        numbers = [int(call.text.split()[0]) for call in calls]
        said = [number for number in numbers if number % 6 == session]
        assert said == sorted(said)
    assert len({call.pid for call in calls}) == 2
    for first in calls:
        # A process may have been late with its note by half a window, and this still holds.
        some = [call for call in calls if first.started <= call.started < first.started + WINDOW / 2]
        assert len(some) <= MOST
    logs = "".join(worker.logs() for worker in workers)
    assert "turn waits for the model" in logs
    assert "will be tried again" not in logs


def test_who_waits_for_the_budget_holds_no_slot_and_no_other_tenant_up(
    start_worker: StartWorker, client: Client, journal: Path, fast: dict[str, str]
) -> None:
    start_worker(concurrency=1, **fast, INTURN_TENANT_MODEL_REQUESTS="2/hour")
    greedy = [client.respond(f"a{number}", f"a{number}", metadata={"tenant": "a"}) for number in range(6)]
    wait_until(lambda: len(read_journal(journal)) == 2)

    for number in range(2):
        other = client.respond(f"b{number}", "hello", metadata={"tenant": "b"})
        assert other.get(timeout=30).message == "you said: hello"
    assert client.respond("nobody", "hello").get(timeout=30).message == "you said: hello"
    assert sorted(handle.status() for handle in greedy) == ["done"] * 2 + ["waiting"] * 4
    assert sum(call.text.startswith("a") for call in read_journal(journal)) == 2


def test_a_turn_that_needs_no_model_needs_no_budget(
    start_worker: StartWorker,
    client: Client,
    mailbox: Mailbox,
    turn_settings: Settings,
    journal: Path,
    fast: dict[str, str],
) -> None:
    start_worker(**fast, INTURN_MODEL_REQUESTS="1/hour")
    client.respond("s", "hello", turn_id="1").get(timeout=30)
    wait_until(lambda: not mailbox.queue("s"))
    with connect(turn_settings) as redis:
        redis.delete(Keys(turn_settings.key_prefix).of_session("s")[4])

    assert client.respond("s", "hello", turn_id="1").accepted, "the mailbox has forgotten it"
    assert client.save_session("s", data={"a": 1}).get(timeout=30).turn_id
    assert len(read_journal(journal)) == 1
