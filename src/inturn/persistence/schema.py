"""The schema of the tables: created where it is missing, checked, and changed by migrations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, NullPool, create_engine, exc, inspect

from inturn.errors import ConfigurationError, StoreError, StoreUnavailableError
from inturn.persistence.columns import MYSQL
from inturn.persistence.models import AgentTables, agent_tables
from inturn.persistence.sql import Tables
from inturn.persistence.sql.psycopg_connections import conninfo_of
from inturn.persistence.sql.sqlalchemy_connections import (
    Engines,
    begin_writing,
    create_own_engine,
    parse_url,
    translated,
)

LOCK = "inturn schema"
LOCK_SECONDS = 60

_MIGRATIONS = "inturn.persistence:migrations"
_SQLALCHEMY = ("sqlite", "mysql+pymysql", "mariadb+pymysql")


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What a database has of the schema.

    `revision` is what the migrations have noted there (None: nothing), `head` their newest, and `missing`
    says in a few words each what tables, columns and indexes are not there.
    """

    revision: str | None
    head: str
    missing: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing for `upgrade` to do but to note that."""
        return not self.missing and self.revision in (None, self.head)


def upgrade(source: str | Engine, *, tables: Mapping[str, str] | None = None) -> SchemaState:
    """Bring a database to the newest schema, and return what it has then.

    `source` is any URL that `open_adapter` takes for a database of tables, or an engine; `tables` is the
    adapter's option. What is there is kept: an empty database gets the tables, older tables are changed, and
    those that an adapter's `initialize()` has created are only noted as what they are. Several processes may
    do this at once. In PostgreSQL and SQLite it is all or nothing; in MySQL, which has no such thing, it
    may be repeated.

    Raises `ConfigurationError` for a source without a schema, and `StoreError` for tables that cannot be
    changed.
    """
    names = Tables.named(tables)
    with _connected(source) as connection, _changing(connection):
        state = _state(connection, names)
        config = _config(connection, names)
        if state.revision is None and not state.missing:
            command.stamp(config, "head")
        else:
            command.upgrade(config, "head")
        state = _state(connection, names)
        if state.missing:
            raise StoreError(f"the schema is still incomplete: {'; '.join(state.missing)}")
        connection.commit()
        return state


def current(source: str | Engine, *, tables: Mapping[str, str] | None = None) -> SchemaState:
    """Return what a database has of the schema; changes nothing. See `upgrade`."""
    names = Tables.named(tables)
    with _connected(source) as connection:
        return _state(connection, names)


def create(engines: Engines, tables: AgentTables) -> None:
    """Create the tables that are missing; raises `StoreError` for one that is there and lacks something."""

    def work(connection: Connection) -> None:
        with locked(connection):
            tables.sessions.metadata.create_all(connection)
            if faults := missing(connection, tables):
                raise StoreError(
                    f"the tables are not what this inturn needs: {'; '.join(faults)}; run `inturn db upgrade`"
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
        if lacking := [column.name for column in table.columns if column.name not in columns]:
            faults.append(f"{name} has no {', '.join(lacking)}")
        indexes = {index["name"] for index in inspector.get_indexes(table.name, table.schema)}
        faults += [
            f"{name} has no index {index}"
            for index in sorted(str(index.name) for index in table.indexes)
            if index not in indexes
        ]
    return faults


def _state(connection: Connection, names: Tables) -> SchemaState:
    schema, version_table = _version_table(names)
    notes = MigrationContext.configure(
        connection, opts={"version_table": version_table, "version_table_schema": schema}
    )
    scripts = ScriptDirectory.from_config(_config(connection, names))
    revision, head = notes.get_current_revision(), scripts.get_current_head()
    assert head is not None
    if revision is not None and revision not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreError(
            f"the schema is at revision {revision}, which this inturn does not know: a newer one made it"
        )
    named = {"sessions": names.sessions, "messages": names.messages, "turns": names.turns}
    tables = agent_tables(MetaData(), tables=named)
    return SchemaState(revision, head, tuple(missing(connection, tables)))


def _version_table(names: Tables) -> tuple[str | None, str]:
    """Schema and name of the migrations' notes; not Alembic's usual name, which is the application's own."""
    schema, _, bare = names.sessions.rpartition(".")
    return schema or None, f"{bare}_schema"


def _config(connection: Connection, names: Tables) -> Config:
    config = Config()
    config.set_main_option("script_location", _MIGRATIONS)
    config.set_main_option("path_separator", "os")
    schema, version_table = _version_table(names)
    config.attributes.update(connection=connection, tables=names, schema=schema, version_table=version_table)
    return config


@contextmanager
def _connected(source: str | Engine) -> Iterator[Connection]:
    engine = source if isinstance(source, Engine) else _engine(source)
    try:
        with engine.connect() as connection:
            yield connection
    except exc.SQLAlchemyError as error:
        raise translated(error) from None
    finally:
        if engine is not source:
            engine.dispose()


def _engine(url: str) -> Engine:
    scheme = url.partition("://")[0] if isinstance(url, str) else ""
    if scheme in ("postgresql", "postgres"):
        # SQLAlchemy reads such a URL in its own way, and not as libpq and PostgreSQLAdapter do.
        conninfo = conninfo_of(url)
        return create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), poolclass=NullPool
        )
    if scheme not in _SQLALCHEMY and not scheme.startswith("sqlalchemy+"):
        raise ConfigurationError(f"{scheme}:// has no tables, and so no schema to change")
    return create_own_engine(parse_url(url), 1)


@contextmanager
def _changing(connection: Connection) -> Iterator[None]:
    """Let one process at a time change the schema."""
    if connection.dialect.name != "sqlite":
        with locked(connection):
            yield
        return
    driver: Any = connection.connection.driver_connection
    (enforced,) = driver.execute("PRAGMA foreign_keys").fetchone()
    # A table is changed by copying it, and dropping the old one must not take the rows that refer to it.
    # SQLite knows this setting outside of transactions only.
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        begin_writing(connection)
        yield
    finally:
        connection.rollback()
        driver.execute(f"PRAGMA foreign_keys = {enforced}")


@contextmanager
def locked(connection: Connection) -> Iterator[None]:
    """Keep other processes from changing the schema, until the transaction ends or the block does.

    Raises `StoreUnavailableError` if another one takes more than a minute over it.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock(hashtext('{LOCK}'))")
        yield
    elif connection.dialect.name in MYSQL:
        # The lock is the server's and the connection's: other databases share it, and commits do not end it.
        if connection.exec_driver_sql(f"SELECT GET_LOCK('{LOCK}', {LOCK_SECONDS})").scalar() != 1:
            raise StoreUnavailableError("another process is changing the schema; try again")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK('{LOCK}')")
    else:
        yield  # SQLite's write transactions exclude each other
