"""deploy/redis/users.acl on a real server: producer, worker and Flower can do their work, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from inturn.client import Client
from inturn.embedded.valkey import EmbeddedValkey
from inturn.erasure import erase_user
from inturn.persistence.opening import open_store
from inturn.settings import load_settings
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from tests.agents import reply_to
from tests.integration.worker.test_flower import flower
from tests.nodes import ROOT, ProcessContainer, worker_container
from tests.waiting import wait_until
from tests.web import web_process

pytestmark = pytest.mark.process

USERS = ROOT / "deploy" / "redis" / "users.acl"
AUTH = httpx.BasicAuth("ann", "secret-enough")

UrlOf = Callable[[str], str]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey with the users of the file, each with its name for a password, and one who may do all."""
    users = tmp_path / "users.acl"
    open_to_all = "user default on nopass ~* &* +@all\n"
    admin = "user admin on >admin ~* &* +@all\n"
    users.write_text(open_to_all + admin)
    with EmbeddedValkey(tmp_path / "valkey", config={"aclfile": str(users)}) as server:
        # It was asked whether it answers, as the default user; from here on there is none.
        named = re.sub(r"^user (\w+) on resetpass", r"user \1 on >\1", USERS.read_text(), flags=re.M)
        users.write_text(named + admin)
        with Redis.from_url(server.url) as default:
            default.acl_load()
        yield server


@pytest.fixture
def url_of(server: EmbeddedValkey) -> UrlOf:
    return lambda user: server.url.replace("//", f"//{user}:{user}@")


@pytest.fixture
def admin(url_of: UrlOf) -> Iterator[Redis]:
    with Redis.from_url(url_of("admin"), decode_responses=True) as client:
        yield client


def refusals(admin: Redis) -> list[tuple[str, str, str]]:
    """Whom the server has refused what."""
    log: Any = admin.acl_log()
    return [(entry["username"], entry["reason"], entry["object"]) for entry in log]


def env_of(url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "REDIS_URL": url,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'sessions.db'}",
        "INTURN_AGENT": "tests.agents:agent",
        "TEST_JOURNAL": str(tmp_path / "journal.jsonl"),
    }


@pytest.fixture
def worker(url_of: UrlOf, tmp_path: Path) -> Iterator[ProcessContainer]:
    worker = worker_container(tmp_path, env_of(url_of("worker"), tmp_path))
    try:
        worker.start()
        yield worker
    finally:
        worker.remove()
        print(worker.tail())


@pytest.fixture
def client(url_of: UrlOf) -> Iterator[Client]:
    with Client(load_settings(redis_url=url_of("producer"))) as client:
        yield client


def test_all_can_do_their_work(
    worker: ProcessContainer, client: Client, admin: Redis, url_of: UrlOf, tmp_path: Path
) -> None:
    assert client.respond("s", "hello", user_id="ann").get().message == reply_to("hello")
    streamed = client.respond("s", "hello again", stream=True)
    assert "".join(piece.text for piece in streamed.stream()) == reply_to("hello again")
    assert client.save_session("s", data={"a": 1}).get().finish_reason == "saved"
    assert client.cleanup_sessions(dry_run=True).get(timeout=60)["deleted"] == {
        "completed": 0,
        "abandoned": 0,
    }
    waiting = client.respond("t", "hello")
    assert waiting.cancel() in ("dropped", "signalled", "unknown")
    assert client.dead.find() == []
    assert client.deliveries() == []

    producer = env_of(url_of("producer"), tmp_path)
    with web_process(tmp_path, {**producer, "INTURN_RATE_LIMIT": "100/second"}) as web:
        answer = web.client.post(
            "/sessions/w/turns", json={"message": "hello", "stream": True}, headers={"Prefer": "wait=30"}
        )
        assert answer.json()["reply"]["message"] == reply_to("hello")
        assert web.client.get("/readyz").status_code == 200

    settings = env_of(url_of("flower"), tmp_path)
    with flower(tmp_path, {**settings, "FLOWER_BASIC_AUTH": "ann:secret-enough"}, "127.0.0.1") as (_, pages):
        wait_until(lambda: bool(pages.get("/api/workers?refresh=1", auth=AUTH).json()), timeout=60)
        handle = client.respond("s", "for flower")
        handle.get()
        wait_until(lambda: handle.turn_id in pages.get("/api/tasks", auth=AUTH).json(), timeout=60)
        assert pages.get("/api/queues/length", auth=AUTH).status_code == 200
        assert pages.get("/broker", auth=AUTH).status_code == 200

    eraser = load_settings(redis_url=url_of("maintenance"), database_url=producer["DATABASE_URL"])
    with open_store(eraser) as store, connect(eraser) as redis:
        report = erase_user(eraser, store, redis, "ann")
    assert report.finished
    assert report.sessions == 1

    assert refusals(admin) == []


MAY_NOT: dict[str, list[tuple[str, ...]]] = {
    "producer": [
        ("BRPOP", "turns", "1"),
        ("LRANGE", "turns", "0", "-1"),
        ("GET", "somebody-elses"),
        ("SET", "somebody-elses", "1"),
        ("HGETALL", "unacked"),
        ("PUBLISH", "/0.celery.pidbox", "shutdown"),
        ("PSUBSCRIBE", "*"),
    ],
    "worker": [
        ("GET", "somebody-elses"),
        ("SET", "somebody-elses", "1"),
        ("PSUBSCRIBE", "*"),
    ],
    "maintenance": [
        ("GET", "somebody-elses"),
        ("SET", "somebody-elses", "1"),
        ("PSUBSCRIBE", "*"),
    ],
    "flower": [
        ("LPUSH", "turns", "a turn"),
        ("DEL", "turns"),
        ("LRANGE", "celery", "0", "-1"),
        ("DUMP", "turns"),
        ("GET", "celery-task-meta-s:1"),
        ("LRANGE", "{queue}", "0", "-1"),
        ("HGETALL", "{payloads}"),
        ("DEL", "{queue}"),
        ("GET", "somebody-elses"),
        ("PSUBSCRIBE", "*"),
    ],
}
NOBODY_MAY: list[tuple[str, ...]] = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "dir", "/tmp"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "me", "on"),
    ("SHUTDOWN", "NOSAVE"),
    ("MONITOR",),
    ("MODULE", "LIST"),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("SCRIPT", "FLUSH"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("CLIENT", "LIST"),
    ("SAVE",),
    ("MIGRATE", "127.0.0.1", "1", "turns", "0", "1"),
]


def test_none_can_do_more(server: EmbeddedValkey, url_of: UrlOf, admin: Redis) -> None:
    keys = Keys("inturn").of_session("s")
    may_too = {"maintenance": "SCAN"}  # an erasure looks for what there is of a person
    names = {"queue": keys[1], "payloads": keys[2]}
    for user, commands in MAY_NOT.items():
        with Redis.from_url(url_of(user)) as client:
            assert client.ping()
            for command in [*commands, *(each for each in NOBODY_MAY if each[0] != may_too.get(user))]:
                with pytest.raises(NoPermissionError):
                    client.execute_command(*(word.format(**names) for word in command))


def test_nobody_is_let_in_without_a_name(server: EmbeddedValkey) -> None:
    with Redis.from_url(server.url) as client, pytest.raises(AuthenticationError):
        client.ping()


def test_as_it_is_shipped_no_user_has_a_password(url_of: UrlOf, admin: Redis) -> None:
    shipped = [line for line in USERS.read_text().splitlines() if line]

    assert [line.split()[1] for line in shipped] == [
        "default",
        "producer",
        "worker",
        "maintenance",
        "flower",
    ]
    for line in shipped[1:]:
        assert "resetpass" in line.split()
        assert "nopass" not in line
        assert not re.search(r"[>#]", line)
