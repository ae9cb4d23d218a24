"""The search for a planted word finds it in each place where an erasure could leave it.

A search that cannot fail shows nothing: here it is planted on purpose, in one place after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from redis import Redis

from inturn import erasure
from inturn.client import Client
from inturn.contract import DeadLetter, TurnFault
from inturn.erasure import erase_user
from inturn.persistence import PersistenceAdapter, Target, open_adapter
from inturn.persistence.inbox import Inbox
from inturn.session import create_session
from inturn.session.state import Delivery, Summary, TurnRecord, create_message
from inturn.settings import Settings
from inturn.turns import DeadLetters
from inturn.turns.connection import connect
from inturn.turns.deliveries import Deliveries
from inturn.turns.keys import Keys
from inturn.turns.wiping import Wiped
from tests.integration.worker.conftest import StartWorker
from tests.integration.worker.test_flower import flower
from tests.marks import MARK, in_flower, in_logs, in_redis, in_store
from tests.waiting import wait_until

pytestmark = pytest.mark.process

OF_A_SESSION: dict[str, Any] = {
    "data": {"word": MARK},
    "data_by_route": {"booking": {"word": MARK}},
    "metadata": {"note": MARK},
    "journal": {"s:1": {"echo": MARK}},
    "pending": {"data": {"word": MARK}},
    "summary": Summary(text=MARK, through=1),
    "outbox": {"s:1": Delivery(channel="sms", address={"to": MARK})},
    "agent_name": MARK,
}
OF_A_MESSAGE: dict[str, Any] = {
    "content": MARK,
    "name": MARK,
    "tool_calls": [{"id": "1", "arguments": MARK}],
    "event": {"note": MARK},
}


@pytest.fixture
def redis(turn_settings: Settings) -> Iterator[Redis]:
    with connect(turn_settings) as client:
        yield client


@pytest.mark.parametrize("store_kind", ["sqlite", "postgresql"])
def test_it_is_found_in_each_field_of_the_store_or_of_an_archive(
    store: PersistenceAdapter, store_url: str
) -> None:
    message = create_message("s", "user", "hello")
    record = TurnRecord(session_id="s", turn_id="s:1", result={"message": MARK})
    plants: list[tuple[str, dict[str, Any], dict[str, Any], TurnRecord | None]] = [
        *((name, {name: value}, {}, None) for name, value in OF_A_SESSION.items()),
        *((name, {}, {name: value}, None) for name, value in OF_A_MESSAGE.items()),
        ("result", {}, {}, record),
    ]
    for name, of_session, of_message, turn in plants:
        session = create_session("s", user_id="ada").model_copy(update=of_session)
        assert MARK not in in_store(store_url)
        store.commit(session, [message.model_copy(update=of_message)], expected_version=0, turn=turn)
        assert MARK in in_store(store_url), name
        store.delete_sessions([Target("s")])

    inbox = Inbox(store_url)
    inbox.initialize()
    inbox.put("s", "s:1", json.dumps({"message": MARK}), ["enqueue", "", 0, 0])
    inbox.close()
    assert MARK in in_store(store_url)


def plant_payload(client: Client, redis: Redis, settings: Settings) -> None:
    client.respond("s", MARK, user_id="ada")


def plant_stream(client: Client, redis: Redis, settings: Settings) -> None:
    redis.xadd(Keys(settings.key_prefix).of_stream("s", "s:1")[1], {"text": MARK})


def plant_result(client: Client, redis: Redis, settings: Settings) -> None:
    client._app.backend.store_result("s:1", {"message": MARK}, "SUCCESS")


def plant_error(client: Client, redis: Redis, settings: Settings) -> None:
    client._app.backend.store_result("s:1", ValueError(MARK), "FAILURE")


def plant_dead_payload(client: Client, redis: Redis, settings: Settings) -> None:
    letter = DeadLetter(session_id="s", turn_id="s:1", error=TurnFault(type="X", message=""))
    DeadLetters(redis, settings).put(letter, json.dumps({"message": MARK}))


def plant_dead_fault(client: Client, redis: Redis, settings: Settings) -> None:
    letter = DeadLetter(session_id="s", turn_id="s:1", error=TurnFault(type="X", message=MARK))
    DeadLetters(redis, settings).put(letter, "{}")


def plant_delivery(client: Client, redis: Redis, settings: Settings) -> None:
    Deliveries(redis, settings).offer("s", "s:1", MARK)


def plant_outcome(client: Client, redis: Redis, settings: Settings) -> None:
    failed = Delivery(channel="sms", state="failed", error=MARK)
    Deliveries(redis, settings).outcomes.note("s", "s:1", failed)


def plant_broker_message(client: Client, redis: Redis, settings: Settings) -> None:
    client._app.send_task("respond", kwargs={"session_id": "s", "message": MARK}, queue="turns")


def plant_unacknowledged(client: Client, redis: Redis, settings: Settings) -> None:
    plant_broker_message(client, redis, settings)
    # As a worker takes it that dies with it in its hand.
    with client._app.connection_for_read() as connection:
        taken: Any = connection.default_channel
        queue = next(each for each in redis.scan_iter("turns*"))
        message = json.loads(str(redis.rpop(str(queue))))
        redis.hset(taken.unacked_key, "tag", json.dumps([message, "", "turns"]))


Plant = Callable[[Client, Redis, Settings], None]
IN_REDIS: list[Plant] = [
    plant_payload,
    plant_stream,
    plant_result,
    plant_error,
    plant_dead_payload,
    plant_dead_fault,
    plant_delivery,
    plant_outcome,
    plant_broker_message,
    plant_unacknowledged,
]


def test_it_is_found_in_redis_wherever_our_code_and_celerys_can_put_it(
    client: Client, redis: Redis, turn_settings: Settings, broker_url: str
) -> None:
    for plant in IN_REDIS:
        redis.flushall()
        assert MARK not in in_redis(broker_url)
        plant(client, redis, turn_settings)
        assert MARK in in_redis(broker_url), plant.__name__


def test_it_is_found_in_each_kind_of_key(redis: Redis, broker_url: str) -> None:
    plants: dict[str, Callable[[], Any]] = {
        "name": lambda: redis.set(f"inturn:{MARK}", "1"),
        "string": lambda: redis.set("k", MARK),
        "list": lambda: redis.rpush("k", MARK),
        "hash": lambda: redis.hset("k", "field", MARK),
        "field of a hash": lambda: redis.hset("k", MARK, "1"),
        "set": lambda: redis.sadd("k", MARK),
        "zset": lambda: redis.zadd("k", {MARK: 1}),
        "stream": lambda: redis.xadd("k", {"text": MARK}),
        "field of a stream": lambda: redis.xadd("k", {MARK: "1"}),
    }
    for kind, plant in plants.items():
        redis.flushall()
        assert MARK not in in_redis(broker_url)
        plant()
        assert MARK in in_redis(broker_url), kind


def test_it_is_found_in_logs_and_in_what_flower_answers(
    start_worker: StartWorker, celery_setup_app: Celery, worker_env: dict[str, str], tmp_path: Path
) -> None:
    start_worker()
    settings = {**worker_env, "FLOWER_BASIC_AUTH": "ann:secret-enough"}
    with flower(tmp_path, settings, "127.0.0.1") as (_, seen):
        seen.auth = httpx.BasicAuth("ann", "secret-enough")
        wait_until(lambda: bool(seen.get("/api/workers?refresh=1").json()), timeout=60)
        assert MARK not in in_logs(tmp_path)
        assert MARK not in in_flower(seen)

        celery_setup_app.send_task("wake_sessions", queue="maintenance", argsrepr=MARK)
        wait_until(lambda: MARK in in_flower(seen), timeout=60)
        # A worker that does not know a task logs the whole message.
        celery_setup_app.send_task("unheard of", kwargs={"message": MARK}, queue="turns")
        wait_until(lambda: MARK in in_logs(tmp_path), timeout=60)


def plant_session(client: Client, redis: Redis, settings: Settings) -> None:
    with open_adapter(settings.database_url.get_secret_value()) as store:
        store.commit(create_session("other", user_id="ada", data={"word": MARK}), expected_version=0)


def plant_guest(client: Client, redis: Redis, settings: Settings) -> None:
    with open_adapter(settings.database_url.get_secret_value()) as store:
        said = create_message("bobs", "user", MARK, user_id="ada")
        store.commit(create_session("bobs", user_id="bob"), [said], expected_version=0)


def plant_waiting_guest(client: Client, redis: Redis, settings: Settings) -> None:
    with open_adapter(settings.database_url.get_secret_value()) as store:
        store.commit(create_session("bobs", user_id="bob"), expected_version=0)
    client.respond("bobs", MARK, user_id="ada")


STEPS: dict[str, tuple[Plant, dict[str, Callable[..., Any]]]] = {
    "sessions": (plant_session, {"inturn.erasure._Erasure._delete": lambda *_: set()}),
    "turns": (
        plant_payload,
        {
            "inturn.erasure._Erasure._stop": lambda *_: None,
            "inturn.erasure.Wiper.wipe": lambda _, ids: [Wiped([], []) for _ in ids],
        },
    ),
    "turns of a guest": (plant_waiting_guest, {"inturn.erasure._Erasure._drop_as_guest": lambda *_: None}),
    "words of a guest": (plant_guest, {"inturn.erasure._Erasure._blank": lambda *_, **__: None}),
    "deliveries": (plant_delivery, {"inturn.erasure.Wiper.wipe_deliveries": lambda *_: 0}),
    "outcomes": (plant_outcome, {"inturn.erasure.Wiper.wipe_deliveries": lambda *_: 0}),
    "dead letters": (plant_dead_payload, {"inturn.erasure._Erasure._dead": lambda *_: []}),
    "streams": (plant_stream, {"inturn.erasure._Erasure._remove_keys": lambda *_, **__: None}),
    "results": (plant_result, {"inturn.erasure._Erasure._remove_results": lambda *_, **__: None}),
    "broker messages": (plant_broker_message, {"inturn.erasure.remove_messages": lambda *_, **__: 0}),
    "unacknowledged": (plant_unacknowledged, {"inturn.erasure.remove_messages": lambda *_, **__: 0}),
}


@pytest.mark.parametrize("step", list(STEPS))
def test_an_erasure_that_leaves_out_a_step_is_found_out(
    step: str,
    store: PersistenceAdapter,
    store_url: str,
    client: Client,
    redis: Redis,
    turn_settings: Settings,
    broker_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(erasure, "SETTLE_SECONDS", 0.01)
    plant, left_out = STEPS[step]
    plant(client, redis, turn_settings)

    def is_left() -> bool:
        # Whose the rest is, the session says: an erasure that has ended forgets it.
        if store.load("s") is None:
            store.commit(create_session("s", user_id="ada"), expected_version=0)
        erase_user(turn_settings, store, redis, "ada", patience=0.1)
        return MARK in in_store(store_url) + in_redis(broker_url)

    with monkeypatch.context() as without:
        for place, nothing in left_out.items():
            without.setattr(place, nothing)
        assert is_left()
    assert not is_left()
