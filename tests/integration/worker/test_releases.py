"""Two releases side by side: sessions go forward to the new shape, and no turn is lost on the way."""

from __future__ import annotations

import pytest

from inturn.client import Client
from inturn.persistence import PersistenceAdapter
from inturn.session import SessionState, create_session
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

MIGRATED = {"first": "Ada", "last": "Lovelace"}


@pytest.fixture
def fast(fast: dict[str, str]) -> dict[str, str]:
    return {**fast, "INTURN_MAX_ATTEMPTS": "2"}


def agent(name: str) -> str:
    return f"tests.integration.worker.releases:{name}"


def stored(store: PersistenceAdapter) -> SessionState:
    found = store.load("s")
    assert found is not None
    return found.session


def test_a_worker_brings_the_sessions_of_the_last_release_to_its_own(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, fast: dict[str, str]
) -> None:
    store.commit(create_session("s", data={"name": "Ada Lovelace"}, schema_version=1), expected_version=0)
    start_worker(**fast, INTURN_AGENT=agent("new"))

    assert client.respond("s", "hello").get(timeout=30).message == "this is the new one"
    assert (stored(store).data, stored(store).schema_version) == (MIGRATED, 2)


def test_turns_that_the_old_release_cannot_take_wait_for_the_new_one(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, fast: dict[str, str]
) -> None:
    before = store.commit(create_session("s", data=MIGRATED, schema_version=2), expected_version=0).session
    old = start_worker(**fast, INTURN_AGENT=agent("old"))
    handles = [client.save_session("s", data={"city": "London"}), client.respond("s", "hello")]
    wait_until(lambda: old.logs().count("turn will be tried again") > 2, what="more tries than attempts")

    assert stored(store) == before
    start_worker(**fast, INTURN_AGENT=agent("new"))
    old.kill("SIGKILL")
    assert handles[0].get(timeout=30).finish_reason == "saved"
    assert handles[1].get(timeout=30).message == "this is the new one"
    assert stored(store).data == {**MIGRATED, "city": "London"}


def test_the_turns_of_a_session_wait_until_its_migration_is_mended(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, fast: dict[str, str]
) -> None:
    session = create_session("s", data={"name": "Ada Lovelace"}, schema_version=1)
    before = store.commit(session, expected_version=0).session
    broken = start_worker(**fast, INTURN_AGENT=agent("broken"))
    handles = [client.respond("s", "hello"), client.save_session("s", data={"city": "London"})]
    wait_until(lambda: broken.logs().count("turn will be tried again") > 2)

    assert stored(store) == before
    assert "Lovelace" not in broken.logs()
    assert "SessionMigrationError" in broken.logs()
    broken.kill("SIGKILL")
    start_worker(**fast, INTURN_AGENT=agent("new"))
    assert handles[0].get(timeout=30).message == "this is the new one"
    assert handles[1].get(timeout=30).finish_reason == "saved"
    assert stored(store).data == {**MIGRATED, "city": "London"}
