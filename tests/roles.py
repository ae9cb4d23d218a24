"""A PostgreSQL with the roles of deploy/sql/roles.sql, and a user for each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from inturn.persistence.inbox import Inbox
from inturn.persistence.schema import upgrade
from tests.nodes import ROOT
from tests.servers import own_postgres

ROLES = ["producer", "worker", "retention", "readonly"]
UrlOf = Callable[[str], str]


@contextmanager
def postgres_with_roles(directory: Path) -> Iterator[UrlOf]:
    """A server of one's own, for roles belong to all of it; gives the URL of a role, or of the `owner`."""
    text = (ROOT / "deploy" / "sql" / "roles.sql").read_text()
    with own_postgres(directory) as server:
        password = secrets.token_hex(8)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE USER owner CREATEROLE PASSWORD {}").format(sql.Literal(password))
            )
            connection.execute("CREATE DATABASE chat OWNER owner")
        place = urlsplit(server.url)
        url = place._replace(netloc=f"owner:{password}@127.0.0.1:{place.port}", path="/chat").geturl()
        upgrade(url)
        inbox = Inbox(url)
        inbox.initialize()
        inbox.close()
        with psycopg.connect(url, autocommit=True) as connection:
            for _ in range(2):  # it may be repeated
                connection.execute(text.encode())
            for role in ROLES:
                connection.execute(
                    sql.SQL("CREATE USER {} PASSWORD {} IN ROLE {}").format(
                        sql.Identifier(f"a_{role}"), sql.Literal(password), sql.Identifier(f"inturn_{role}")
                    )
                )
        yield lambda role: url if role == "owner" else url.replace("//owner:", f"//a_{role}:")
