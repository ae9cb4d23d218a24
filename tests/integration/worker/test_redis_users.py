"""Least privilege: each process works with its user of Redis and its role of PostgreSQL, and can do no more.

What the roles of PostgreSQL can and cannot do is in tests/integration/test_sql_roles.py.
"""

from __future__ import annotations

import json
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
from inturn.persistence import open_adapter
from inturn.settings import load_settings
from inturn.turns.keys import Keys
from tests.agents import reply_to
from tests.integration.worker.test_cli import inturn
from tests.integration.worker.test_flower import flower
from tests.nodes import ROOT, ProcessContainer, worker_container
from tests.roles import UrlOf, postgres_with_roles
from tests.waiting import wait_until
from tests.web import web_process

pytestmark = pytest.mark.process

USERS = ROOT / "deploy" / "redis" / "users.acl"
AUTH = httpx.BasicAuth("ann", "secret-enough")


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


@pytest.fixture
def role_url_of(tmp_path: Path) -> Iterator[UrlOf]:
    with postgres_with_roles(tmp_path / "postgres") as role_url_of:
        yield role_url_of


EnvOf = Callable[[str, str], dict[str, str]]


@pytest.fixture
def env_of(url_of: UrlOf, role_url_of: UrlOf, tmp_path: Path) -> EnvOf:
    """The environment of a process with this user and this role."""

    def make(user: str, role: str) -> dict[str, str]:
        return {
            "REDIS_URL": url_of(user),
            "DATABASE_URL": role_url_of(role),
            "INTURN_AGENT": "tests.agents:agent",
            "INTURN_INBOX": "database",
            "INTURN_ABANDONED_DAYS": "0.000001",
            "TEST_JOURNAL": str(tmp_path / "journal.jsonl"),
        }

    return make


@pytest.fixture
def workers(env_of: EnvOf, tmp_path: Path) -> Iterator[list[ProcessContainer]]:
    """One for turns, and one for what takes more rights."""
    workers = [worker_container(tmp_path, env_of("worker", "worker"))]
    workers += [worker_container(tmp_path, env_of("maintenance", "retention"))]
    workers[0].command += ["--queues", "turns,delivery,celery"]
    workers[1].command += ["--queues", "maintenance"]
    try:
        for worker in workers:
            worker.start()
        yield workers
    finally:
        for worker in workers:
            worker.remove()
            print(worker.tail())


@pytest.fixture
def client(url_of: UrlOf, role_url_of: UrlOf) -> Iterator[Client]:
    settings = load_settings(
        redis_url=url_of("producer"), database_url=role_url_of("producer"), inbox="database"
    )
    with Client(settings) as client:
        yield client


def test_all_can_do_their_work(
    workers: list[ProcessContainer],
    client: Client,
    admin: Redis,
    env_of: EnvOf,
    role_url_of: UrlOf,
    tmp_path: Path,
) -> None:
    assert client.respond("s", "hello", user_id="ann").get().message == reply_to("hello")
    streamed = client.respond("s", "hello again", stream=True)
    assert "".join(piece.text for piece in streamed.stream()) == reply_to("hello again")
    assert client.save_session("s", data={"a": 1}).get().finish_reason == "saved"
    client.save_session("old", status="abandoned", user_id="ann").get()
    wait_until(lambda: client.cleanup_sessions().get(timeout=60)["deleted"]["abandoned"])
    client.respond("group", "hello", user_id="bob").get()
    client.respond("group", "ann was here", user_id="ann").get()
    waiting = client.respond("t", "hello")
    assert waiting.cancel() in ("dropped", "signalled", "unknown")
    assert client.dead.find() == []
    assert client.deliveries() == []

    producer = env_of("producer", "producer")
    with web_process(tmp_path, {**producer, "INTURN_RATE_LIMIT": "100/second"}) as web:
        answer = web.client.post(
            "/sessions/w/turns", json={"message": "hello", "stream": True}, headers={"Prefer": "wait=30"}
        )
        assert answer.json()["reply"]["message"] == reply_to("hello")
        assert web.client.get("/readyz").status_code == 200
        assert web.client.get("/users/ann/export").status_code == 200
        assert web.client.delete("/sessions/w").status_code == 204
        # The rest of what there is of her is for the worker that may do it.
        report = web.client.delete("/users/ann").json()
        assert (report["finished"], report["sessions"], report["messages_blanked"]) == (True, 1, 2)

    settings = {"REDIS_URL": env_of("flower", "readonly")["REDIS_URL"]}
    with flower(tmp_path, {**settings, "FLOWER_BASIC_AUTH": "ann:secret-enough"}, "127.0.0.1") as (_, pages):
        wait_until(lambda: bool(pages.get("/api/workers?refresh=1", auth=AUTH).json()), timeout=60)
        handle = client.respond("s", "for flower")
        handle.get()
        wait_until(lambda: handle.turn_id in pages.get("/api/tasks", auth=AUTH).json(), timeout=60)
        assert pages.get("/api/queues/length", auth=AUTH).status_code == 200
        assert pages.get("/broker", auth=AUTH).status_code == 200

    by_hand = inturn(
        "users", "erase", "bob", "--yes", "--json", cwd=tmp_path, **env_of("maintenance", "retention")
    )
    assert by_hand.returncode == 0, by_hand.stderr
    assert json.loads(by_hand.stdout)["sessions"] == 1
    with open_adapter(role_url_of("readonly")) as store:
        assert [store.load(session_id) for session_id in ("old", "w", "group")] == [None] * 3

    assert refusals(admin) == []
    assert not any("permission denied" in worker.tail() for worker in workers)


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
