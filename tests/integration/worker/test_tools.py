"""Tools in workers that die or pause: a call is made at most once, whatever happens around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from inturn.client import Client
from inturn.persistence import MessageQuery, PersistenceAdapter
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

UNKNOWN = "The process ended while this call was made: whether it took effect is not known."


@pytest.fixture
def worker_env(worker_env: dict[str, str], fast: dict[str, str]) -> dict[str, str]:
    return {**worker_env, **fast, "INTURN_AGENT": "tests.tool_agents:agent"}


def calls(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


@pytest.mark.parametrize("pool", ["threads", "prefork", "gevent"])
@pytest.mark.parametrize(
    ("point", "made", "says"),
    [
        ("before", 1, "It says: paid 0.0"),
        ("inside", 1, f"It says: {UNKNOWN}"),
        ("after", 1, "It says: paid 0.0"),
    ],
)
def test_a_tool_is_called_once_wherever_its_worker_dies(
    pool: str, point: str, made: int, says: str,
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path,
) -> None:  # fmt: skip
    workers = [start_worker(pool=pool, concurrency=2) for _ in range(2)]

    handle = client.respond("s", f"pay, die {point}")
    following = client.respond("s", "next")

    reply = handle.get(60)
    died = Path(f"{journal}.{point}.died").exists()
    assert died, "the process was killed at the point"
    assert pool == "prefork" or sum(worker.container.status == "exited" for worker in workers) == 1
    assert reply.message.startswith(says)
    assert calls(journal) == [f"pay, die {point}"] * made
    assert following.get(60).message == "you said: next"
    rows = store.find_messages(MessageQuery(session_id="s")).items
    assert [row.role for row in rows] == ["user", "tool", "assistant", "user", "assistant"]
    found = store.load("s")
    assert found is not None
    assert found.session.journal == {}


def test_a_worker_that_was_paused_in_a_call_does_not_answer_for_the_next_owner(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    hold = Path(f"{journal}.hold")
    hold.touch()
    paused = start_worker(concurrency=2)
    handle = client.respond("s", "pay, hold")
    wait_until(lambda: calls(journal), what="the call to begin")

    paused.kill("SIGSTOP")
    start_worker(concurrency=2)
    reply = handle.get(60)
    hold.unlink()
    paused.kill("SIGCONT")
    following = client.respond("s", "next")

    assert reply.message.startswith(f"It says: {UNKNOWN}")
    assert following.get(60).message == "you said: next"
    assert calls(journal) == ["pay, hold"]
    rows = store.find_messages(MessageQuery(session_id="s")).items
    assert [row.role for row in rows] == ["user", "tool", "assistant", "user", "assistant"]
    wait_until(lambda: "lease lost" in paused.logs(), what="the paused worker to notice")
    assert len(store.find_messages(MessageQuery(session_id="s")).items) == 5
