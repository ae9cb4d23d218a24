"""SQLAlchemyAdapter keeps the contract: on PostgreSQL and SQLite, by URL and on a caller's engine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from inturn.persistence import PersistenceAdapter, SQLAlchemyAdapter, open_adapter
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen


@pytest.fixture(scope="class")
def sqlalchemy_url(schema_url: str) -> str:
    """The URL of a schema of PostgreSQL, as SQLAlchemy wants it."""
    return "postgresql+psycopg://" + schema_url.partition("://")[2]


class TestPostgreSQL(AdapterConformance):
    kills = 4  # each writer imports SQLAlchemy anew

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, sqlalchemy_url: str) -> Iterator[PersistenceAdapter]:
        with open_adapter(f"sqlalchemy+{sqlalchemy_url}") as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, sqlalchemy_url: str) -> Reopen:
        return partial(open_adapter, f"sqlalchemy+{sqlalchemy_url}", pool_size=2)


@pytest.mark.variant
class TestNames(AdapterConformance):
    """Tables in a schema, with capitals and reserved words; columns in camel case; one connection."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, sqlalchemy_url: str, schema: str) -> Iterator[PersistenceAdapter]:
        tables = {"sessions": f"{schema}.Chat", "messages": f"{schema}.select", "turns": f"{schema}.user"}
        mappings = {
            "sessions": {"id": "sessionId", "user_id": "userId", "updated_at": "group", "version": "order"},
            "messages": {"id": "ID", "session_id": "sessionId", "sequence": "desc", "created_at": "on"},
            "turns": {"session_id": "sessionId", "turn_id": "from", "result": "table"},
        }
        with SQLAlchemyAdapter(
            sqlalchemy_url, tables=tables, field_mappings=mappings, pool_size=1
        ) as adapter:
            yield adapter


@pytest.mark.variant
class TestCallersEngine(AdapterConformance):
    """A caller's engine, stricter than need be and far from UTC."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, sqlalchemy_url: str) -> Iterator[PersistenceAdapter]:
        url = f"{sqlalchemy_url}%20-cTimeZone%3DAsia/Kathmandu"
        engine = create_engine(url, isolation_level="SERIALIZABLE")
        with SQLAlchemyAdapter(engine, tables={"sessions": "custom_sessions"}) as adapter:
            yield adapter
        engine.dispose()


class TestSQLiteFile(AdapterConformance):
    kills = 4

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlalchemy+sqlite:///{tmp_path}/sessions.db"

    @pytest.fixture
    def adapter(self, url: str) -> Iterator[PersistenceAdapter]:
        with open_adapter(url) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, url: str) -> Reopen:
        return partial(open_adapter, url)


@pytest.mark.variant
class TestSQLiteInMemory(AdapterConformance):
    @pytest.fixture
    def adapter(self) -> Iterator[PersistenceAdapter]:
        with open_adapter("sqlalchemy+sqlite://") as adapter:
            yield adapter


@pytest.mark.variant
class TestSQLiteCallersEngine(AdapterConformance):
    """The engine is as SQLAlchemy makes it by default: no foreign keys, no write-ahead log."""

    @pytest.fixture
    def adapter(self, tmp_path: Path) -> Iterator[PersistenceAdapter]:
        engine = create_engine(f"sqlite:///{tmp_path}/sessions.db")
        with SQLAlchemyAdapter(engine, tables={"sessions": "chat", "messages": "select"}) as adapter:
            yield adapter
        engine.dispose()
