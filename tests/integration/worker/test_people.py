"""Export and erasure by API and library: who may, what comes, and an erasure that dies on the way."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.connection import AbstractConnection
from starlette.testclient import TestClient

from inturn import erasure
from inturn.audit.reading import read_audit_log
from inturn.client import Client
from inturn.contract import DeadLetter, TurnFault
from inturn.erasure import erase_user
from inturn.errors import TurnCancelledError
from inturn.people import export_user
from inturn.persistence import PersistenceAdapter, Target
from inturn.persistence.archiving import ArchivingAdapter
from inturn.persistence.memory import MemoryAdapter
from inturn.persistence.opening import open_store
from inturn.session import create_session
from inturn.session.state import create_message
from inturn.settings import Settings
from inturn.turns import DeadLetters, Mailbox
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from producer import users
from tests.agents import read_journal
from tests.integration.worker.conftest import StartWorker, WebHere
from tests.marks import MARK, in_redis, in_store
from tests.waiting import wait_until
from tests.web import BACKEND, KEYS, SECRET, signed

pytestmark = pytest.mark.process


@pytest.fixture
def redis(turn_settings: Settings) -> Iterator[Redis]:
    with connect(turn_settings) as client:
        yield client


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "SETTLE_SECONDS", 0.01)


@pytest.fixture
def web(here: WebHere) -> TestClient:
    return here(api_keys=KEYS, jwt_secret=SECRET)


def plant(store: PersistenceAdapter, client: Client, redis: Redis, settings: Settings) -> None:
    """Three sessions of ada's in the store, one that only waits, a dead letter, and her word in bob's."""
    for name, user in (("a1", "ada"), ("a2", "ada"), ("a3", "ada"), ("b1", "bob")):
        store.commit(
            create_session(name, user_id=user, data={"word": MARK if user == "ada" else ""}),
            [
                create_message(name, "user", f"{user} speaks", user_id=user),
                create_message(name, "user", MARK, user_id="ada", turn_id=f"{name}:1"),
            ],
            expected_version=0,
        )
    client.respond("a1", f"{MARK} waits", user_id="ada", turn_id="w")
    client.respond("new", MARK, user_id="ada")
    client.respond("b1", f"{MARK} as a guest", user_id="ada")
    client.respond("b1", "bob waits", user_id="bob", turn_id="bob")
    letter = DeadLetter(session_id="a2", turn_id="a2:0", user_id="ada", error=TurnFault(type="X", message=""))
    DeadLetters(redis, settings).put(letter, json.dumps({"message": MARK}))
    # Of these nothing but the session's ID says whose they are.
    client._app.backend.store_result("a3:1", {"message": MARK}, "SUCCESS")
    redis.xadd(Keys(settings.key_prefix).of_stream("a3", "a3:1")[1], {"text": MARK})


def test_an_export_has_all_that_is_theirs_and_nothing_of_others(
    web: TestClient, store: PersistenceAdapter, client: Client, redis: Redis, turn_settings: Settings
) -> None:
    plant(store, client, redis, turn_settings)

    for headers in (BACKEND, signed("ada")):
        answer = web.get("/users/ada/export", headers=headers)
        lines = [json.loads(line) for line in answer.text.splitlines()]

        assert answer.headers["content-type"].startswith("application/x-ndjson")
        assert [line["type"] for line in (lines[0], lines[-1])] == ["user", "end"]
        kinds = [line["type"] for line in lines]
        assert [kinds.count(kind) for kind in ("session", "message", "turn", "dead_letter")] == [3, 7, 3, 1]
        assert "bob" not in answer.text
        assert answer.text.count(MARK) == 11

    assert web.get("/users/ada/export", headers=signed("bob")).status_code == 404
    assert web.delete("/users/ada", headers=signed("bob")).status_code == 404
    assert web.get("/users/ada/export").status_code == 401
    assert web.delete("/users/ada").status_code == 401


def test_a_user_erases_themselves_and_nobody_else(
    web: TestClient,
    store: PersistenceAdapter,
    client: Client,
    redis: Redis,
    turn_settings: Settings,
    start_worker: StartWorker,
    store_url: str,
    broker_url: str,
    tmp_path: Path,
) -> None:
    plant(store, client, redis, turn_settings)
    start_worker(queues="maintenance", INTURN_AUDIT_LOG=str(tmp_path / "audit"))

    answer = web.delete("/users/ada", headers=signed("ada"))

    report = answer.json()
    assert (answer.status_code, report["finished"], report["elsewhere"]) == (200, True, [])
    assert (report["sessions"], report["messages"], report["turns_cancelled"]) == (3, 6, 3)
    assert (report["dead_letters"], report["messages_blanked"]) == (1, 1)
    assert MARK not in in_store(store_url)
    assert MARK not in in_redis(broker_url)
    assert client.status("b1", "b1:bob") == "waiting"
    shown = web.get("/sessions/b1/messages", headers=BACKEND).json()["items"]
    assert [line["content"] for line in shown] == ["bob speaks", "[erased]"]

    again = web.delete("/users/ada", headers=BACKEND).json()
    assert [again[place] for place in ("sessions", "turns_cancelled", "dead_letters")] == [0, 0, 0]
    told = [each for each in read_audit_log(tmp_path / "audit") if each.get("call") == "erase_user"]
    assert {each["actor"] for each in told} == {"user:ada", "key:backend"}


def test_an_erasure_that_no_worker_has_ended_is_not_said_to_be_done(
    web: TestClient,
    redis: Redis,
    store: PersistenceAdapter,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.commit(create_session("s", user_id="ada"), expected_version=0)
    monkeypatch.setattr(users, "LONGEST_WAIT", 0.1)

    answer = web.delete("/users/ada", headers=signed("ada"))
    again = web.delete("/users/ada", headers=signed("ada"))

    assert again.status_code == 503
    assert redis.llen("maintenance") == 1
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:inturn:problem:not-erased-yet")
    assert store.load("s") is not None
    start_worker(queues="maintenance")
    wait_until(lambda: store.load("s") is None)


def test_an_erasure_that_dies_at_any_call_of_redis_is_ended_by_the_next_one(
    store: PersistenceAdapter,
    client: Client,
    redis: Redis,
    turn_settings: Settings,
    store_url: str,
    broker_url: str,
    at_once: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Died(BaseException):
        pass

    left = [0]
    send: Any = AbstractConnection.send_packed_command

    def count_down(self: AbstractConnection, *args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Died
        return send(self, *args, **kwargs)

    plant(store, client, redis, turn_settings)
    monkeypatch.setattr(AbstractConnection, "send_packed_command", count_down)
    deaths, most = 0, 0
    while True:
        most += 1 + most // 20
        left[0] = most
        try:
            with connect(turn_settings) as mine:
                report = erase_user(turn_settings, store, mine, "ada", patience=1)
            break
        except Died:
            deaths += 1
    monkeypatch.undo()

    assert report.finished
    assert deaths > 10
    assert MARK not in in_store(store_url)
    assert MARK not in in_redis(broker_url)
    assert client.status("b1", "b1:bob") == "waiting"


def test_the_archive_goes_too_and_is_exported(turn_settings: Settings, redis: Redis, at_once: None) -> None:
    store = ArchivingAdapter(MemoryAdapter(), MemoryAdapter())
    store.initialize()
    for name in ("kept", "old"):
        session = create_session(name, user_id="ada")
        store.commit(session, [create_message(name, "user", MARK, user_id="ada")], expected_version=0)
    store.hot.delete_sessions([Target("old")])

    lines = list(export_user(turn_settings, store, redis, "ada"))
    assert [line["archived"] for line in lines if line["type"] == "session"] == [False, True]
    assert [line["type"] for line in lines].count("message") == 2

    report = erase_user(turn_settings, store, redis, "ada")
    assert report.sessions == 2
    assert MARK not in repr([vars(store.hot), vars(store.archive)])


def test_a_turn_that_runs_is_stopped_first(
    store: PersistenceAdapter,
    client: Client,
    redis: Redis,
    turn_settings: Settings,
    start_worker: StartWorker,
    store_url: str,
    broker_url: str,
    journal: Path,
) -> None:
    start_worker()
    turn = client.respond("s", f"slowly 0.2 {MARK} count 500", user_id="ada", stream=True)
    wait_until(lambda: read_journal(journal))
    wait_until(lambda: Mailbox(redis, turn_settings).look("s", turn.turn_id).state == "running")

    report = erase_user(turn_settings, store, redis, "ada")

    assert report.finished
    assert report.cut_off == 0
    assert MARK not in in_store(store_url)
    assert MARK not in in_redis(broker_url)


def test_a_reply_goes_whose_turn_is_still_in_its_mailbox(
    store: PersistenceAdapter,
    client: Client,
    redis: Redis,
    turn_settings: Settings,
    broker_url: str,
    at_once: None,
) -> None:
    store.commit(create_session("s", user_id="ada"), expected_version=0)
    turn = client.respond("s", "hello", user_id="ada")
    client._app.backend.store_result(turn.turn_id, {"message": MARK}, "SUCCESS")

    erase_user(turn_settings, store, redis, "ada")

    assert MARK not in in_redis(broker_url)
    with pytest.raises(TurnCancelledError):
        turn.get(timeout=5)


def test_it_is_in_the_audit_log_and_takes_no_key(
    turn_settings: Settings, redis: Redis, store_url: str, tmp_path: Path, at_once: None
) -> None:
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    settings = turn_settings.model_copy(
        update={"audit_log": tmp_path / "audit", "encryption_keys": SecretStr(f"lost:{key}")}
    )
    with open_store(settings) as store:
        session = create_session("s", user_id="ada", data={"word": MARK})
        store.commit(session, [create_message("s", "user", MARK, user_id="ada")], expected_version=0)
    settings = settings.model_copy(update={"encryption_keys": None})

    with open_store(settings) as store:
        assert erase_user(settings, store, redis, "ada").sessions == 1
        assert store.load("s") is None

    records = list(read_audit_log(tmp_path / "audit", user_id="ada"))
    told = [each for each in records if each.get("call") == "erase_user"]
    assert {each["outcome"] for each in told} == {"asked", "done"}
    assert all(each["sessions"] == ["s"] for each in told)
    assert not any("inturn:erased" in session for each in records for session in each["sessions"])
