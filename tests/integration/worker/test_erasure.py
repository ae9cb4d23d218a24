"""Erasure: of what somebody has said nothing is left, anywhere, and no late turn brings it back.

That a word which is left would be found, wherever it is, is shown in test_marks.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from inturn.client import Client
from inturn.errors import TurnCancelledError, TurnFailedError
from inturn.persistence import PersistenceAdapter
from inturn.session import create_session
from inturn.session.state import Delivery, Summary, create_message
from inturn.settings import Settings
from inturn.turns.connection import connect
from inturn.turns.deliveries import Deliveries
from tests.integration.worker.conftest import StartWeb, StartWorker
from tests.integration.worker.test_cli import inturn
from tests.integration.worker.test_flower import flower
from tests.marks import MARK, in_flower, in_logs, in_redis, in_store
from tests.waiting import wait_until
from tests.web import BACKEND, KEYS, SECRET, Web, signed

pytestmark = pytest.mark.process


@pytest.fixture
def worker_env(worker_env: dict[str, str], store_kind: str, fast: dict[str, str]) -> dict[str, str]:
    return {
        **worker_env,
        **fast,
        "INTURN_AGENT": "tests.marked_agents:agent",
        "INTURN_INBOX": "database" if store_kind == "postgresql" else "redis",
        "INTURN_RATE_LIMIT": "1000/minute",
        "INTURN_API_KEYS": KEYS,
        "INTURN_JWT_SECRET": SECRET,
    }


@pytest.fixture
def turn_settings(turn_settings: Settings, store_kind: str) -> Settings:
    inbox = "database" if store_kind == "postgresql" else "redis"
    return turn_settings.model_copy(update={"inbox": inbox})


@pytest.fixture
def redis(turn_settings: Settings) -> Iterator[Redis]:
    with connect(turn_settings) as client:
        yield client


def calls(journal: Path) -> int:
    return len(journal.read_text().splitlines()) if journal.exists() else 0


def plant(client: Client, store: PersistenceAdapter, redis: Redis, settings: Settings) -> None:
    """Have what ada says wherever it can be while nothing runs."""
    told = client.respond(
        "s1", f"remember {MARK}", user_id="ada", metadata={"note": MARK}, stream=True, turn_id="1"
    )
    assert MARK in told.get().message
    client.save_session("s1", data={"word": MARK}, metadata={"note": MARK}, user_id="ada").get()
    with pytest.raises(TurnFailedError):
        client.respond("s1", f"refused {MARK}", user_id="ada", turn_id="bad").get()
    session = create_session(
        "sms:+49", user_id="ada", agent_name="marked", summary=Summary(text=MARK, through=1)
    )
    session.outbox["sms%3A%2B49:1"] = Delivery(channel="sms", address={"to": MARK})
    store.commit(session, [create_message("sms:+49", "user", MARK, user_id="ada")], expected_version=0)
    Deliveries(redis, settings).offer("sms:+49", "sms%3A%2B49:1", "sms")
    Deliveries(redis, settings).outcomes.note(
        "sms:+49", "sms%3A%2B49:0", Delivery(channel="sms", state="failed")
    )
    guest = create_session("group", user_id="bob", agent_name="marked")
    store.commit(
        guest,
        [
            create_message("group", "user", "bob speaks", user_id="bob"),
            create_message("group", "user", MARK, user_id="ada", turn_id="group:1"),
            create_message("group", "assistant", f"you said: {MARK}", user_id="bob", turn_id="group:1"),
        ],
        expected_version=0,
    )


@pytest.mark.parametrize("store_kind", ["sqlite", "postgresql"])
@pytest.mark.long
def test_nothing_is_left_and_a_paused_worker_brings_nothing_back(
    start_worker: StartWorker,
    start_web: StartWeb,
    client: Client,
    store: PersistenceAdapter,
    store_url: str,
    broker_url: str,
    redis: Redis,
    turn_settings: Settings,
    journal: Path,
    tmp_path: Path,
    worker_env: dict[str, str],
) -> None:
    worker = start_worker(concurrency=4)
    web = start_web()
    with flower(tmp_path, {**worker_env, "FLOWER_BASIC_AUTH": "ann:secret-enough"}, "127.0.0.1") as (_, seen):
        seen.auth = httpx.BasicAuth("ann", "secret-enough")
        plant(client, store, redis, turn_settings)
        ticket(web, "s1:1")
        before = calls(journal)
        # In a session that is there, in one that they begin, and in the middle of a text that is read.
        held = [
            client.respond(session, f"hold {MARK}", user_id="ada", stream=session == "s3")
            for session in ("s1", "s2", "s3")
        ]
        wait_until(lambda: calls(journal) >= before + len(held))
        worker.kill("SIGSTOP")
        waiting = client.respond("s2", f"{MARK} waits", user_id="ada")
        # Of these the first may be in the hand of the paused worker already, where nobody can reach it.
        for number in range(2):
            bare = {"session_id": f"bare{number}", "message": MARK, "user_id": "ada"}
            client._app.send_task("respond", kwargs=bare, queue="turns")
        assert MARK in in_store(store_url)
        assert MARK in in_redis(broker_url)

        shown = inturn("users", "erase", "ada", "--dry-run", "--json", cwd=tmp_path, **worker_env)
        report = inturn(
            "users", "erase", "ada", "--yes", "--json", "--patience", "0.5", cwd=tmp_path, **worker_env
        )

        assert report.returncode == 0, report.stderr
        counts, expected = json.loads(report.stdout), json.loads(shown.stdout)
        print(counts)
        for place in (
            "sessions",
            "messages",
            "broker_messages",
            "dead_letters",
            "messages_blanked",
            "tickets",
        ):
            assert counts[place] == expected[place] > 0, place
        assert counts["elsewhere"] == ["group"]
        assert all(counts[place] > 0 for place in ("turns_cancelled", "results", "streams", "deliveries"))
        assert MARK not in in_store(store_url)
        assert MARK not in in_redis(broker_url)
        with pytest.raises(TurnCancelledError):
            waiting.get(timeout=5)

        worker.kill("SIGCONT")
        Path(f"{journal}.go").touch()
        ended = [f"turn_id={turn.turn_id}" for turn in held]
        wait_until(lambda: all(line in in_logs(tmp_path) for line in ended), timeout=60)
        assert in_logs(tmp_path).count("turn dropped: its user was erased") >= 2
        # A webhook that is repeated finds its turn known.
        assert not client.respond("s1", f"remember {MARK}", user_id="ada", turn_id="1").accepted
        assert client.respond("other", "hello", user_id="bob").get().message == "you said: hello"

        assert MARK not in in_store(store_url)
        assert MARK not in in_redis(broker_url)
        assert MARK not in in_flower(seen)
        assert MARK not in in_logs(tmp_path)
        assert web.client.get("/sessions/s1", headers=BACKEND).status_code == 404

        # Who comes back is a new customer.
        assert client.respond("s1", "hello again", user_id="ada").get().message == "you said: hello again"
        answer = web.client.get("/sessions/s1", headers=signed("ada"))
        assert (answer.status_code, answer.json()["message_count"]) == (200, 2)


def ticket(web: Web, turn_id: str) -> None:
    """Have the web API know ada: a rate limit, a claim, a ticket."""
    answer = web.client.post(
        # Its call of the model is not to be taken for one that comes later.
        "/sessions/claimed/turns",
        json={"message": f"say {MARK}"},
        headers={**signed("ada"), "Prefer": "wait=40"},
    )
    assert answer.is_success, answer.text
    assert answer.status_code == 200, "it has ended"
    answer = web.client.post(f"/turns/{turn_id}/tickets", headers=signed("ada"))
    assert answer.is_success, answer.text
