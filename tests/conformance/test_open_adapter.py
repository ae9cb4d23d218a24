"""open_adapter: every URL it documents, and clear words for any other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from inturn.errors import ConfigurationError, MissingDriverError
from inturn.persistence import (
    MemoryAdapter,
    MongoAdapter,
    OpenSearchAdapter,
    PersistenceAdapter,
    PostgreSQLAdapter,
    RedisAdapter,
    SQLAlchemyAdapter,
    SQLiteAdapter,
    open_adapter,
)
from tests.conformance.scripts import run_script


def test_every_url_of_its_docstring_opens_the_adapter_of_its_scheme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    urls = re.findall(r"^ *- `(\S+)`", open_adapter.__doc__ or "", re.MULTILINE)
    kinds: dict[str, type[PersistenceAdapter]] = {
        "memory": MemoryAdapter,
        "sqlite": SQLiteAdapter,
        "postgresql": PostgreSQLAdapter,
        "postgres": PostgreSQLAdapter,
        "mariadb+pymysql": SQLAlchemyAdapter,
        "mysql+pymysql": SQLAlchemyAdapter,
        "sqlalchemy+postgresql+psycopg": SQLAlchemyAdapter,
        "redis": RedisAdapter,
        "rediss": RedisAdapter,
        "unix": RedisAdapter,
        "mongodb": MongoAdapter,
        "mongodb+srv": MongoAdapter,
        "opensearch": OpenSearchAdapter,
        "opensearchs": OpenSearchAdapter,
    }
    assert {url.partition("://")[0] for url in urls} == kinds.keys()
    for url in urls:
        adapter = open_adapter(url.replace("...", "me@host/db"))
        assert type(adapter) is kinds[url.partition("://")[0]]
        adapter.close()


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("postgress://me:hunter2@host/db", "postgres://"),
        ("Postgresql://me:hunter2@host/db", "postgresql://"),
        ("sqllite:///hunter2.db", "sqlite://"),
        ("mem://", "memory://"),
    ],
)
def test_a_scheme_that_is_nearly_right_is_guessed(url: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"did you mean {meant}") as error:
        open_adapter(url)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["", "hunter2", "://hunter2", "zzz://hunter2", "memory://hunter2", "sqlite:hunter2", None, 7]
)
def test_what_is_no_url_is_refused_without_showing_it(url: Any) -> None:
    with pytest.raises(ConfigurationError) as error:
        open_adapter(url)
    assert "hunter2" not in str(error.value)


def test_options_are_those_of_the_adapter() -> None:
    adapter = open_adapter("sqlite:///:memory:", tables={"sessions": "chat"})
    adapter.close()
    with pytest.raises(ConfigurationError, match="'table'"):
        open_adapter("sqlite:///:memory:", table="chat")
    with pytest.raises(ConfigurationError, match="'tables'"):
        open_adapter("memory://", tables={})


@pytest.mark.parametrize("url", ["memory://", "sqlite:///:memory:", "postgresql://host/db"])
def test_a_pool_size_suits_every_url(url: str) -> None:
    open_adapter(url, pool_size=3).close()


def test_a_driver_that_is_missing_is_named_with_what_to_install() -> None:
    said = run_script(
        """
        import sys
        from inturn.errors import MissingDriverError
        from inturn.persistence import open_adapter

        sys.modules["psycopg"] = None
        try:
            open_adapter("postgresql://me:hunter2@host/db")
        except MissingDriverError as error:
            print(error)
        """
    )
    assert "psycopg" in said
    assert "pip install" in said
    assert "hunter2" not in said
    assert issubclass(MissingDriverError, ConfigurationError)


def test_no_driver_is_loaded_before_its_url_is_opened() -> None:
    said = run_script(
        """
        import sys
        from inturn.persistence import open_adapter

        open_adapter("memory://")
        print([name for name in ("psycopg", "psycopg_pool", "sqlite3") if name in sys.modules])
        """
    )
    assert said == "[]\n"
