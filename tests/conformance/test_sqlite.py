"""SQLiteAdapter keeps the contract: on a file, in memory, and on a caller's own connection."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from inturn.persistence import PersistenceAdapter, SQLiteAdapter, open_adapter
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen


class TestSQLiteFile(AdapterConformance):
    long_session = 100_000

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/sessions.db"

    @pytest.fixture
    def adapter(self, url: str) -> Iterator[PersistenceAdapter]:
        with open_adapter(url) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, url: str) -> Reopen:
        return functools.partial(open_adapter, url)


@pytest.mark.variant
class TestSQLiteInMemory(AdapterConformance):
    @pytest.fixture
    def adapter(self) -> Iterator[PersistenceAdapter]:
        with open_adapter("sqlite:///:memory:") as adapter:
            yield adapter


@pytest.mark.variant
class TestSQLiteConnection(AdapterConformance):
    """The connection is as Python makes it by default: no foreign keys, no write-ahead log."""

    @pytest.fixture
    def adapter(self, tmp_path: Path) -> Iterator[PersistenceAdapter]:
        with (
            closing(sqlite3.connect(tmp_path / "sessions.db", check_same_thread=False)) as connection,
            SQLiteAdapter(connection, tables={"sessions": "chat", "messages": "select"}) as adapter,
        ):
            yield adapter
