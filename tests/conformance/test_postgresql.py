"""PostgreSQLAdapter keeps the contract: by URL, on other tables, on a caller's pool and connection."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from inturn.persistence import PersistenceAdapter, PostgreSQLAdapter, open_adapter
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen


class TestPostgreSQL(AdapterConformance):
    long_session = 100_000

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, schema_url: str) -> Iterator[PersistenceAdapter]:
        with open_adapter(schema_url) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, schema_url: str) -> Reopen:
        return functools.partial(open_adapter, schema_url, pool_size=2)


@pytest.mark.variant
class TestPostgreSQLTables(AdapterConformance):
    """Names with a schema, capitals and reserved words, in a pool of one connection."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, database_url: str, schema: str) -> Iterator[PersistenceAdapter]:
        tables = {"sessions": f"{schema}.Chat", "messages": f"{schema}.select", "turns": f"{schema}.user"}
        with open_adapter(database_url, tables=tables, pool_size=1) as adapter:
            yield adapter


@pytest.mark.variant
class TestPostgreSQLPool(AdapterConformance):
    """A caller's pool, of connections that are not in autocommit mode and far from UTC."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, schema_url: str) -> Iterator[PersistenceAdapter]:
        def configure(connection: psycopg.Connection[Any]) -> None:
            connection.execute("SET TimeZone = 'Asia/Kathmandu'")
            connection.commit()

        with (
            ConnectionPool(schema_url, open=True, max_size=8, configure=configure) as pool,
            PostgreSQLAdapter(pool) as adapter,
        ):
            yield adapter


@pytest.mark.variant
class TestPostgreSQLConnection(AdapterConformance):
    """A caller's one connection, with its own ideas of rows and isolation."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, schema_url: str) -> Iterator[PersistenceAdapter]:
        with (
            psycopg.Connection.connect(schema_url, row_factory=dict_row) as connection,
            PostgreSQLAdapter(connection, tables={"sessions": "custom_sessions"}) as adapter,
        ):
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            yield adapter
