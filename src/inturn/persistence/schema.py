"""The schema of the tables: created where it is missing, checked, and changed by migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, inspect

from inturn.errors import StoreError, StoreUnavailableError
from inturn.persistence.columns import MYSQL
from inturn.persistence.models import AgentTables
from inturn.persistence.sql.sqlalchemy_connections import Engines

LOCK = "inturn schema"
LOCK_SECONDS = 60


def create(engines: Engines, tables: AgentTables) -> None:
    """Create the tables that are missing; raises `StoreError` for one that is there and lacks columns."""

    def work(connection: Connection) -> None:
        with locked(connection):
            tables.sessions.metadata.create_all(connection)
            if faults := missing(connection, tables):
                raise StoreError(
                    f"the tables are older than this inturn: {'; '.join(faults)}. Run `inturn db upgrade`"
                )

    if engines.read(lambda connection: missing(connection, tables)):
        engines.write(work, repeatable=True)


def missing(connection: Connection, tables: AgentTables) -> list[str]:
    """What of the tables is not there: tables, columns and indexes, each in a few words."""
    faults = []
    inspector = inspect(connection)
    for table in tables:
        name = table.fullname
        if not inspector.has_table(table.name, table.schema):
            faults.append(f"there is no table {name}")
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name, table.schema)}
        lacking = [column.name for column in table.columns if column.name not in columns]
        if lacking:
            faults.append(f"{name} has no {', '.join(lacking)}")
        indexes = {index["name"] for index in inspector.get_indexes(table.name, table.schema)}
        faults += [
            f"{name} has no index {index.name}"
            for index in sorted(table.indexes, key=lambda index: str(index.name))
            if index.name not in indexes
        ]
    return faults


@contextmanager
def locked(connection: Connection) -> Iterator[None]:
    """Keep other processes from changing the schema, until the transaction ends or the block does.

    Raises `StoreUnavailableError` if another one takes more than a minute over it.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock(hashtext('{LOCK}'))")
        yield
    elif connection.dialect.name in MYSQL:
        lock = f"'{LOCK}'"
        # The server's, and not the database's: two databases wait for each other in vain, and briefly.
        if connection.exec_driver_sql(f"SELECT GET_LOCK({lock}, {LOCK_SECONDS})").scalar() != 1:
            raise StoreUnavailableError("another process is changing the schema; try again")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK({lock})")
    else:
        yield  # SQLite's write transactions exclude each other
