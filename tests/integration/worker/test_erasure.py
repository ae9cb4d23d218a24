"""Erasure: of what somebody has said nothing is left, anywhere, and no late turn brings it back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from sqlalchemy import MetaData, create_engine, select

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
from tests.waiting import wait_until
from tests.web import BACKEND, KEYS, SECRET, Web, signed

pytestmark = pytest.mark.process

MARK = "xylophone"


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


def in_store(url: str) -> str:
    """All tables with all that is in them."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {
            name: [tuple(row) for row in connection.execute(select(table))]
            for name, table in tables.tables.items()
        }
    engine.dispose()
    return repr(found)


def in_redis(url: str) -> str:
    """All keys with all that is in them, and what is in the bodies of messages."""
    with Redis.from_url(url, decode_responses=True) as client:
        found: list[Any] = []
        for key in client.scan_iter(count=1000):
            kind = client.type(key)
            if kind == "string":
                value: Any = client.get(key)
            elif kind == "list":
                value = client.lrange(key, 0, -1)
            elif kind == "hash":
                value = client.hgetall(key)
            elif kind == "zset":
                value = client.zrange(key, 0, -1, withscores=True)
            elif kind == "set":
                value = client.smembers(key)
            elif kind == "stream":
                value = client.xrange(key)
            else:
                continue  # it went meanwhile
            found.append((key, value))
    return repr(found) + " ".join(_bodies(found))


def _bodies(found: Iterable[tuple[str, Any]]) -> Iterator[str]:
    for _, value in found:
        for text in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            try:
                message = json.loads(text)
                body = (message[0] if isinstance(message, list) else message)["body"]
                yield base64.b64decode(body).decode()
            except (ValueError, KeyError, TypeError, IndexError):
                continue


def in_flower(client: httpx.Client) -> str:
    tasks = client.get("/api/tasks?limit=1000").json()
    pages = ["/api/tasks", "/api/workers", "/tasks", "/metrics"]
    pages += [f"/api/task/info/{task}" for task in tasks] + [f"/task/{task}" for task in tasks]
    return json.dumps(tasks) + "".join(client.get(page).text for page in pages)


def in_logs(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*.log"))


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
        "/sessions/claimed/turns", json={"message": f"say {MARK}"}, headers=signed("ada")
    )
    assert answer.is_success, answer.text
    answer = web.client.post(f"/turns/{turn_id}/tickets", headers=signed("ada"))
    assert answer.is_success, answer.text
