"""DELETE /sessions/{id}: all of it or nothing, and it does not come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from inturn.client import Client
from inturn.persistence import MessageQuery, PersistenceAdapter, Target
from inturn.session import create_session
from inturn.session.state import create_message
from inturn.settings import Settings
from inturn.turns.connection import connect
from inturn.turns.deliveries import Deliveries
from producer.store import Store
from tests.agents import let_go, reply_to
from tests.integration.worker.conftest import StartWorker, WebHere
from tests.waiting import wait_until
from tests.web import AnyClient

pytestmark = pytest.mark.process


def lines(store: PersistenceAdapter, session_id: str) -> list[tuple[int, str]]:
    found = store.find_messages(MessageQuery(session_id=session_id, limit=1000)).items
    return [(line.sequence, line.content) for line in found]


def say(client: AnyClient, message: str, key: str, **headers: str) -> Any:
    headers = {"Idempotency-Key": key, **headers}
    body = {"message": message, "stream": True}
    return client.post("/sessions/s/turns", json=body, headers=headers)


@pytest.fixture
def web(here: WebHere) -> TestClient:
    return here()


def test_a_session_goes_with_its_messages(web: TestClient, start_worker: StartWorker) -> None:
    start_worker()
    for number in range(3):
        say(web, f"hello {number}", str(number), Prefer="wait=20")
    wait_until(lambda: web.get("/sessions/s").json()["waiting"] == 0)

    assert web.delete("/sessions/s").status_code == 204
    assert web.get("/sessions/s").status_code == 404
    assert web.get("/sessions/s/messages").status_code == 404
    assert web.delete("/sessions/s").status_code == 404


@pytest.mark.parametrize("runs", [True, False], ids=["runs", "waits"])
def test_a_session_stays_while_a_turn_of_it_waits_or_runs(
    web: TestClient, store: PersistenceAdapter, start_worker: StartWorker, journal: Path, runs: bool
) -> None:
    store.commit(create_session("s"), [create_message("s", "user", "before")], expected_version=0)
    if runs:
        start_worker()
    turn = say(web, "pause", "1").json()
    if runs:
        wait_until(lambda: web.get(f"/turns/{turn['turn_id']}").json()["status"] == "running")

    refused = web.delete("/sessions/s")

    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:inturn:problem:session-busy"
    assert lines(store, "s") == [(1, "before")]
    if not runs:
        web.delete(f"/turns/{turn['turn_id']}")
        assert web.delete("/sessions/s").status_code == 204
    let_go(journal)


def test_a_session_whose_first_turn_waits_stays(web: TestClient) -> None:
    say(web, "hello", "1")

    assert web.delete("/sessions/s").status_code == 409
    assert web.get("/sessions/s").json()["waiting"] == 1


def test_a_session_stays_while_a_reply_of_it_is_on_its_way_out(
    web: TestClient, store: PersistenceAdapter, turn_settings: Settings
) -> None:
    store.commit(create_session("s"), [], expected_version=0)
    with connect(turn_settings) as redis:
        Deliveries(redis, turn_settings).offer("s", "s:1", "slack")

    assert web.delete("/sessions/s").status_code == 409
    assert store.load("s") is not None


def test_a_session_that_was_changed_while_it_was_to_be_deleted_stays(
    web: TestClient, store: PersistenceAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.commit(create_session("s"), [], expected_version=0).session
    use = Store.use

    def change_and_use(self: Store) -> Any:
        adapter = use(self)
        if store.load("s").session.version == 1 and reads:  # type: ignore[union-attr]
            store.commit(session, [create_message("s", "user", "just now")], expected_version=1)
        reads.append(1)
        return adapter

    reads: list[int] = []
    monkeypatch.setattr(Store, "use", change_and_use)

    assert web.delete("/sessions/s").status_code == 409
    assert lines(store, "s") == [(1, "just now")]


def test_a_turn_that_runs_while_its_session_is_deleted_begins_a_new_one(
    web: TestClient, store: PersistenceAdapter, start_worker: StartWorker, client: Client, journal: Path
) -> None:
    start_worker()
    say(web, "before", "1", Prefer="wait=20")
    say(web, "one pause two", "2")
    wait_until(lambda: web.get("/turns/s:2").json()["status"] == "running")
    # What the API refuses, and what still may come about if the turn is accepted at just the wrong moment.
    assert store.delete_sessions([Target("s")]) == ["s"]
    let_go(journal)

    assert client.handle("s", "2").get(timeout=30).message == reply_to("one pause two")
    assert lines(store, "s") == [(1, "one pause two"), (2, reply_to("one pause two"))]
    loaded = store.load("s")
    assert loaded is not None
    assert (loaded.session.version, loaded.session.message_count) == (1, 2)
    assert web.get("/turns/s:1").json()["status"] == "done", "a repeated message of before stays done"
    assert say(web, "before", "1").json()["status"] == "done"
