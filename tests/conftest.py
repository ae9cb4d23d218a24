"""The servers that tests talk to: real ones, started here unless REDIS_URL or DATABASE_URL names others."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator

import pytest
from redis import Redis

from inturn.embedded.valkey import EmbeddedValkey
from tests.keys import keys_of, keys_without_ttl
from tests.order import deal
from tests.servers import postgres
from tests.servers_cluster import ValkeyCluster, valkey_cluster

_THE_SAME_FOR_ALL = ("inturn.testing.conformance.input", "inturn.testing.conformance.lengths")
"""Parts of the kit on what stands before the connection: one way to a store shows it for all of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--everything`."""
    parser.addoption("--everything", action="store_true", help="leave no part of any variant out")


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start, also where a shell runs the tests in the background, without it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)  # after those who choose tests, or order them by their fixtures
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out of variants what would show the same thing many times, and deal the rest to processes."""
    if not config.getoption("--everything"):
        leave_out_variants(config, items)
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    if processes > 1:
        items[:] = deal(items, processes)


def leave_out_variants(config: pytest.Config, items: list[pytest.Item]) -> None:
    variants = [
        item for item in items if isinstance(item, pytest.Function) and item.get_closest_marker("variant")
    ]
    left_out = [item for item in variants if item.function.__module__ in _THE_SAME_FOR_ALL]
    for item in variants:
        assert item.cls is not None
        item.cls.examples = 8  # of the histories that the whole kit tries 25
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A Valkey of the test run's own, whatever REDIS_URL says. Leave it running: it is shared."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """A Valkey Cluster of three nodes, for a test's own keys: leave it running and whole, it is shared."""
    with valkey_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """The Redis for all tests that need none of their own; it may be somebody's: write below `key_prefix`."""
    named = os.environ.get("REDIS_URL")
    return named or request.getfixturevalue("valkey").url


@pytest.fixture
def key_prefix(redis_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix for this test's keys in Redis, which are removed after it.

    The test fails if keys without a time to live are left, unless it says which with
    `@pytest.mark.leaves_keys("pattern", ...)`.
    """
    prefix = f"inturn-test-{secrets.token_hex(4)}"
    yield prefix
    with Redis.from_url(redis_url) as client:
        marker = request.node.get_closest_marker("leaves_keys")
        left = keys_without_ttl(client, prefix, declared=marker.args if marker else ())
        if keys := keys_of(client, prefix):
            client.delete(*keys)
    assert left == [], "keys without a time to live were left in Redis"


@pytest.fixture
def redis_client(redis_url: str, key_prefix: str) -> Iterator[Redis]:
    """A client of `redis_url`; every key that a test writes must begin with `key_prefix`."""
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The PostgreSQL for all tests that need no server of their own; give every test tables of its own."""
    with postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url
