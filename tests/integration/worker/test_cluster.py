"""Workers whose mailboxes are on a cluster of three nodes, and whose broker is a single server."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from inturn.client import Client
from inturn.persistence import MessageQuery, PersistenceAdapter
from inturn.settings import Settings, load_settings
from tests.agents import let_go, read_journal, reply_to
from tests.integration.worker.conftest import StartWorker
from tests.servers_cluster import ValkeyCluster
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.long]

SESSIONS = [f"s{number}" for number in range(6)]
"""Some on each node."""


@pytest.fixture
def key_prefix() -> str:
    return f"inturn-test-{secrets.token_hex(4)}"


@pytest.fixture
def worker_env(
    worker_env: dict[str, str], cluster: ValkeyCluster, broker_url: str, key_prefix: str
) -> dict[str, str]:
    return {
        **worker_env,
        "REDIS_URL": cluster.url,
        "INTURN_REDIS_CLUSTER": "true",
        "INTURN_BROKER_URL": broker_url,
        "INTURN_KEY_PREFIX": key_prefix,
    }


@pytest.fixture
def turn_settings(cluster: ValkeyCluster, broker_url: str, store_url: str, key_prefix: str) -> Settings:
    return load_settings(
        redis_url=cluster.url,
        redis_cluster=True,
        broker_url=broker_url,
        database_url=store_url,
        key_prefix=key_prefix,
    )


def said(store: PersistenceAdapter, session_id: str) -> list[str]:
    """What the user has said, as the history has it."""
    found = store.find_messages(MessageQuery(session_id=session_id, limit=1000)).items
    return [message.content for message in found if message.role == "user"]


def test_turns_on_all_nodes_are_answered_in_order_and_a_killed_worker_is_missed(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    journal: Path,
    fast: dict[str, str],
    cluster: ValkeyCluster,
    key_prefix: str,
) -> None:
    victim = start_worker(concurrency=8, **fast)
    firsts = [client.respond(session, "first sleep 1") for session in SESSIONS]
    handles = [client.respond(session, f"turn {number}") for number in range(3) for session in SESSIONS]
    wait_until(lambda: read_journal(journal), what="a turn to begin")

    victim.kill("SIGKILL")
    start_worker(concurrency=8, **fast)

    for handle in [*firsts, *handles]:
        assert handle.get(timeout=60).message
    for session in SESSIONS:
        assert said(store, session) == ["first sleep 1", "turn 0", "turn 1", "turn 2"]
    assert any(f"{key_prefix}:" in name for name in cluster.scan(key_prefix))


def test_a_reply_is_read_while_it_is_written_and_turns_are_cancelled(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    start_worker(concurrency=8)
    handle = client.respond("s", "one pause two", stream=True)
    waiting = client.respond("s", "never")
    reader = handle.stream(timeout=30)
    before = next(reader)
    assert handle.status() == "running"
    assert client.cancel("s", waiting.turn_id) == "dropped"

    let_go(journal)
    assert "".join(piece.text for piece in [before, *reader]) == reply_to("one pause two")
    assert handle.get(timeout=30).message == reply_to("one pause two")
    assert said(store, "s") == ["one pause two"]
