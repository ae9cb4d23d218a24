"""A broker of its own for each test, and as many worker processes as it starts."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from celery import Celery
from psycopg import sql
from pytest_celery import CeleryTestBackend, CeleryTestWorker, RedisTestBackend, RedisTestBroker
from starlette.testclient import TestClient

from inturn.client import Client
from inturn.persistence import PersistenceAdapter, open_adapter
from inturn.settings import Settings, load_settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect
from tests.nodes import InturnWorker, LocalRedis, ProcessContainer, redis_container, worker_container
from tests.web import Web, web_here, web_process

StartWorker = Callable[..., CeleryTestWorker]
StartWeb = Callable[..., Web]
WebHere = Callable[..., TestClient]


# One Redis is broker and result backend, as it is by default; the plugin would also try RabbitMQ and others.
@pytest.fixture
def celery_broker(celery_redis_broker: RedisTestBroker) -> RedisTestBroker:
    return celery_redis_broker


@pytest.fixture
def celery_backend(celery_redis_backend: RedisTestBackend) -> RedisTestBackend:
    return celery_redis_backend


@pytest.fixture
def celery_redis_backend(default_redis_backend: LocalRedis) -> Iterator[RedisTestBackend]:
    backend = RedisTestBackend(default_redis_backend)
    yield backend
    # The plugin's own way looks at every object of the process for results that might still ask the server,
    # which fails on the first dead weak reference that some other test has left; nothing of ours does.
    CeleryTestBackend.teardown(backend)


@pytest.fixture
def default_redis_broker(tmp_path: Path) -> Iterator[LocalRedis]:
    server = redis_container(tmp_path / "valkey")
    server.start()
    yield LocalRedis(server)
    server.remove()


@pytest.fixture
def default_redis_backend(default_redis_broker: LocalRedis) -> LocalRedis:
    return default_redis_broker


@pytest.fixture
def broker_url(celery_broker: RedisTestBroker) -> str:
    """The Redis of this test alone: broker, results, mailboxes and leases."""
    return str(celery_broker.container.url)


@pytest.fixture
def store_kind() -> str:
    """Which store the workers of a test use; parametrize a test with it to choose another."""
    return "sqlite"


@pytest.fixture
def store_url(store_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the workers of this test, and of no other, keep their sessions."""
    if store_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'sessions.db'}"
        return
    server = request.getfixturevalue("database_url")
    name = f"test_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield urlsplit(server)._replace(path=f"/{name}").geturl()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def worker_env(broker_url: str, store_url: str, journal: Path) -> dict[str, str]:
    """The environment of all workers of this test; override it to change a setting for all of them."""
    return {
        "REDIS_URL": broker_url,
        "DATABASE_URL": store_url,
        "INTURN_AGENT": "tests.agents:agent",
        "TEST_JOURNAL": str(journal),
    }


@pytest.fixture
def start_worker_container(
    tmp_path: Path, worker_env: dict[str, str]
) -> Iterator[Callable[..., InturnWorker]]:
    started: list[ProcessContainer] = []

    def start(
        pool: str = "threads",
        concurrency: int = 8,
        app: str = "worker",
        queues: str | None = None,
        **env: str,
    ) -> InturnWorker:
        container = worker_container(
            tmp_path, {**worker_env, **env}, pool=pool, concurrency=concurrency, app=app
        )
        if queues is not None:
            container.command += ["--queues", queues]
        started.append(container)
        container.start()
        return InturnWorker(container)

    yield start
    for container in started:
        container.remove()
        print(f"--- {container.name}\n{container.tail()}")  # pytest shows it where a test has failed


@pytest.fixture
def start_worker(
    start_worker_container: Callable[..., InturnWorker], celery_setup_app: Celery
) -> StartWorker:
    """Start one more worker: `start_worker(pool="threads", concurrency=8, INTURN_LEASE_SECONDS="2")`.

    It returns when the worker is ready to take tasks. The node's `kill` takes "SIGKILL", "SIGSTOP" and
    "SIGCONT", which reach the worker's children too, and "SIGTERM"; the rest (`restart`, `logs`,
    `wait_for_log`, `hostname`, `container.status`, `container.pid`) is as the plugin describes it.
    """

    def start(**options: Any) -> CeleryTestWorker:
        return CeleryTestWorker(start_worker_container(**options), celery_setup_app)

    return start


@pytest.fixture
def default_worker_container(start_worker_container: Callable[..., InturnWorker]) -> InturnWorker:
    """The one worker of `celery_setup`."""
    return start_worker_container()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """What the agent of `tests.agents` did; see `read_journal`."""
    return tmp_path / "journal.jsonl"


@pytest.fixture
def fast() -> dict[str, str]:
    """Settings under which a lease lapses soon, for tests that are not about the default times."""
    return {
        "INTURN_LEASE_SECONDS": "2",
        "INTURN_RENEW_SECONDS": "0.5",
        "INTURN_SWEEP_SECONDS": "0.2",
        "INTURN_RETRY_SECONDS": "0.1",
    }


@pytest.fixture
def turn_settings(broker_url: str, store_url: str) -> Settings:
    return load_settings(redis_url=broker_url, database_url=store_url)


@pytest.fixture
def client(turn_settings: Settings) -> Iterator[Client]:
    with Client(turn_settings) as client:
        yield client


@pytest.fixture
def mailbox(turn_settings: Settings) -> Iterator[Mailbox]:
    with connect(turn_settings) as redis:
        yield Mailbox(redis, turn_settings)


@pytest.fixture
def store(store_url: str) -> Iterator[PersistenceAdapter]:
    """The store of this test's workers, seen from outside."""
    with open_adapter(store_url) as adapter:
        yield adapter


@pytest.fixture
def start_web(tmp_path: Path, worker_env: dict[str, str]) -> Iterator[StartWeb]:
    """Start a web process: `start_web(INTURN_RATE_LIMIT="2/minute")`."""
    with ExitStack() as stack:
        yield lambda **env: stack.enter_context(web_process(tmp_path, {**worker_env, **env}))


@pytest.fixture
def web(start_web: StartWeb) -> Web:
    """A web process without authentication, for whoever is on this machine."""
    return start_web()


@pytest.fixture
def here(broker_url: str, store_url: str) -> Iterator[WebHere]:
    """Make the web application in this process: `here(rate_limit="2/minute")` gives a client of it.

    `host` and `address` are whom it asks for and where it is; the rest are settings.
    """
    handlers = logging.getLogger().handlers[:]
    with ExitStack() as stack:

        def make(host: str = "127.0.0.1", address: str = "127.0.0.1", **settings: Any) -> TestClient:
            given = {"redis_url": broker_url, "database_url": store_url, **settings}
            return stack.enter_context(web_here(load_settings(**given), host=host, address=address))

        yield make
    logging.getLogger().handlers[:] = handlers
