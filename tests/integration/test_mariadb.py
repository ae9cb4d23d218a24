"""SQLAlchemyAdapter on a real MariaDB: the whole kit, and what is special about that server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, make_url, text

from inturn.persistence import PersistenceAdapter, SQLAlchemyAdapter, open_adapter
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen
from tests.servers_mariadb import mariadb, why_no_mariadb

pytestmark = pytest.mark.skipif(why_no_mariadb() is not None, reason=why_no_mariadb() or "")


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with mariadb() as url:
        yield url


class TestMariaDB(AdapterConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, server_url: str) -> Iterator[PersistenceAdapter]:
        with open_adapter(server_url) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, server_url: str) -> Reopen:
        return lambda: open_adapter(server_url, pool_size=8)


class TestCallersEngine(AdapterConformance):
    """A caller's engine, as SQLAlchemy makes it: transactions that repeat what they have read."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, server_url: str) -> Iterator[PersistenceAdapter]:
        engine = create_engine(make_url(server_url).set(drivername="mysql+pymysql"))
        with SQLAlchemyAdapter(engine, tables={"sessions": "custom_sessions"}) as adapter:
            yield adapter
        engine.dispose()
