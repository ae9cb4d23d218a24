"""What the conformance tests share: tables that nobody else uses, in the PostgreSQL of the test run."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql


@pytest.fixture(scope="class")
def schema(database_url: str) -> Iterator[str]:
    """A schema of the database that is this test class's own, and goes with it."""
    name = f"inturn_test_{secrets.token_hex(4)}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))


@pytest.fixture(scope="class")
def schema_url(database_url: str, schema: str) -> str:
    """The database's URL, with `schema` as the place of every table that is named without one."""
    separator = "&" if "?" in database_url else "?"
    return f"{database_url}{separator}options=-csearch_path%3D{schema}"
