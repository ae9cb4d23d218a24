"""Erasures that workers are asked for: one of each user at a time, and nobody who monitors sees of whom."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from redis import Redis

from inturn.audit import acting_as
from inturn.client import Client
from inturn.persistence import PersistenceAdapter
from inturn.session import create_session
from inturn.settings import Settings
from inturn.turns.connection import connect
from inturn.turns.erasures import Erasures
from tests.integration.worker.conftest import StartWorker
from tests.integration.worker.test_flower import flower
from tests.marks import in_flower
from tests.waiting import wait_until

pytestmark = pytest.mark.process

PHONE = "+15550001111"


@pytest.fixture
def redis(turn_settings: Settings) -> Iterator[Redis]:
    with connect(turn_settings) as client:
        yield client


def waiting(redis: Redis) -> int:
    found: Any = redis.llen("maintenance")
    return int(found)


def asked_for(redis: Redis) -> list[str]:
    return list(redis.scan_iter(match="*:erasure:*:asked"))


def test_who_asks_again_waits_for_what_has_not_begun(
    client: Client, store: PersistenceAdapter, redis: Redis, start_worker: StartWorker
) -> None:
    store.commit(create_session("s", user_id=PHONE), expected_version=0)
    asked = [client.erase_user(PHONE) for _ in range(5)]
    other = client.erase_user("ada")
    with acting_as("key:backend"):
        theirs = client.erase_user(PHONE)

    assert len({task.id for task in asked}) == 1
    assert len({asked[0].id, other.id, theirs.id}) == 3
    assert waiting(redis) == 3

    start_worker(queues="maintenance")
    # Every one of them is told, and nobody takes the report away from another.
    done = [asked[0].get(timeout=90), asked[1].get(timeout=90), theirs.get(timeout=90)]
    assert [report["finished"] for report in done] == [True, True, True]
    assert done[0] == done[1]
    assert sorted(report["sessions"] for report in done[1:]) == [0, 1]
    assert other.get(timeout=90)["sessions"] == 0

    # They come back, and go again.
    store.commit(create_session("s2", user_id=PHONE), expected_version=0)
    again = client.erase_user(PHONE)
    assert again.id != asked[0].id
    assert again.get(timeout=90)["sessions"] == 1
    assert store.load("s2") is None
    wait_until(lambda: not list(redis.scan_iter(match="*:erasure:*")))


def test_one_that_has_begun_is_waited_for_by_one_more(
    client: Client, redis: Redis, turn_settings: Settings
) -> None:
    app, erasures = client._app, Erasures(redis, turn_settings)
    begun = threading.Event()

    def ask() -> str:
        return str(erasures.ask(app, PHONE, patience=1, actor=None).id)

    def wait(task_id: str) -> None:
        with erasures.alone(task_id, PHONE, patience=1, actor=None):
            begun.set()

    first = ask()
    with erasures.alone(first, PHONE, patience=1, actor=None):
        second = ask()
        assert second != first
        redis.unlink(*asked_for(redis))
        thread = threading.Thread(target=wait, args=(second,))
        thread.start()
        wait_until(lambda: asked_for(redis), what="that the second says that it waits")
        assert {ask() for _ in range(3)} == {second}
        # Its worker has died, and its message comes again.
        with erasures.alone(first, PHONE, patience=1, actor=None):
            assert not begun.is_set()
        thread.join(60)
    thread.join(60)

    assert begun.is_set()
    assert waiting(redis) == 2
    assert ask() not in (first, second)


def test_nobody_who_monitors_sees_of_whom(
    client: Client,
    store: PersistenceAdapter,
    redis: Redis,
    celery_setup_app: Celery,
    start_worker: StartWorker,
    worker_env: dict[str, str],
    tmp_path: Path,
) -> None:
    store.commit(create_session(f"sms:{PHONE}", user_id=PHONE), expected_version=0)
    start_worker(queues="maintenance")
    with flower(tmp_path, {**worker_env, "FLOWER_BASIC_AUTH": "ann:secret-enough"}, "127.0.0.1") as (_, seen):
        seen.auth = httpx.BasicAuth("ann", "secret-enough")
        wait_until(lambda: "worker" in seen.get("/api/workers?refresh=1").text, timeout=60)
        with acting_as(f"user:{PHONE}"):
            task = client.erase_user(PHONE)
        assert task.get(timeout=90)["sessions"] == 1
        bare = celery_setup_app.send_task("erase_user", kwargs={"user_id": PHONE}, queue="maintenance")
        assert bare.get(timeout=90)["finished"]

        def ended() -> bool:
            tasks = json.loads(seen.get("/api/tasks?limit=1000").text)
            return all(tasks.get(each.id, {}).get("state") == "SUCCESS" for each in (task, bare))

        wait_until(ended, timeout=60)
        assert PHONE not in in_flower(seen)
        assert "5550001111" not in in_flower(seen)
    for each in (task, bare):
        assert 0 < int(redis.ttl(f"celery-task-meta-{each.id}")) <= 300
