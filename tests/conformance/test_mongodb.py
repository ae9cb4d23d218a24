"""MongoAdapter keeps the contract: on a replica set, on a single server, and on a caller's client."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from pymongo import MongoClient

from inturn.persistence import MongoAdapter, PersistenceAdapter, open_adapter
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen
from tests.servers_mongodb import OwnMongoDB, mongodb


@pytest.fixture(scope="module")
def mongodb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mongodb(tmp_path_factory.mktemp("mongodb")) as url:
        yield url


@pytest.fixture(scope="class")
def database(mongodb_url: str) -> Iterator[str]:
    """A database that is this test class's own, and goes with it."""
    name = f"inturn_test_{secrets.token_hex(4)}"
    yield name
    with MongoClient[dict[str, Any]](mongodb_url) as client:
        client.drop_database(name)


class TestMongoDB(AdapterConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, mongodb_url: str, database: str) -> Iterator[PersistenceAdapter]:
        with open_adapter(mongodb_url, database_name=database) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, mongodb_url: str, database: str) -> Reopen:
        return partial(open_adapter, mongodb_url, database_name=database, pool_size=2)


@pytest.mark.variant
class TestMongoDBSingleServer(AdapterConformance):
    """No replica set: neither transactions nor writes that the driver repeats."""

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        with OwnMongoDB(tmp_path_factory.mktemp("single"), standalone=True) as server:
            yield f"{server.url}chat"

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, url: str) -> Iterator[PersistenceAdapter]:
        with open_adapter(url) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, url: str) -> Reopen:
        return partial(open_adapter, url)


@pytest.mark.variant
class TestMongoDBClient(AdapterConformance):
    """A caller's client, with careless settings of its own, and names for all collections."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, mongodb_url: str, database: str) -> Iterator[PersistenceAdapter]:
        names = {"sessions": "chat.sessions", "messages": "select", "turns": "user data"}
        with (
            MongoClient[dict[str, Any]](mongodb_url, w=0, tz_aware=True, readPreference="nearest") as client,
            MongoAdapter(client, database_name=database, collections=names) as adapter,
        ):
            yield adapter
