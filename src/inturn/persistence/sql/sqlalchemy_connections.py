"""Where SQLAlchemyAdapter gets its connections, and what becomes of the drivers' errors."""

from __future__ import annotations

import random
import selectors
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.pool import QueuePool

from inturn.errors import ConfigurationError, MissingDriverError, StoreError, StoreUnavailableError
from inturn.persistence.columns import MYSQL
from inturn.persistence.forks import watch_forks
from inturn.persistence.sql import psycopg_connections, sqlite_connections
from inturn.persistence.sql.turnstile import Turnstile

T = TypeVar("T")

PREFIX = "sqlalchemy+"
"""What `open_adapter` has before a URL that is meant for SQLAlchemy."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "psycopg": dict(psycopg_connections.DEFAULTS),
    "pymysql": {"connect_timeout": 5, "read_timeout": 60, "write_timeout": 60},
    "pysqlite": {"timeout": sqlite_connections.BUSY_SECONDS, "check_same_thread": False},
}
_TRIES = 10
"""How often a transaction is tried that the database rolls back because of others."""


class Duplicate(Exception):
    """A row has the key of one that is there."""


class Engines(ABC):
    """Lends connections of an engine."""

    @abstractmethod
    def lend(self) -> AbstractContextManager[Engine]:
        """Give the engine of this process, once it has a connection to spare."""

    @abstractmethod
    def close(self) -> None:
        """Close what was opened here."""

    def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work`, one statement that only reads, makes of a connection."""
        return self._run(work, write=False, repeatable=True)

    def write(self, work: Callable[[Connection], T], *, repeatable: bool, single: bool = False) -> T:
        """Return what `work` makes of a connection, as one transaction; `single`: it is one statement.

        One that the database has rolled back is repeated; one whose connection was lost, which nobody can
        tell the end of, only if it is `repeatable`. Raises `Duplicate`, and otherwise our errors.
        """
        return self._run(work, write=True, repeatable=repeatable, single=single)

    def _run(
        self, work: Callable[[Connection], T], *, write: bool, repeatable: bool, single: bool = True
    ) -> T:
        may_repeat_loss = repeatable
        attempt = 0
        while True:
            attempt += 1
            try:
                with self.lend() as engine:
                    return _transaction(engine, work, write=write, single=single)
            except exc.SQLAlchemyError as error:
                if _is_duplicate(error):
                    raise Duplicate from None
                if attempt < _TRIES and _was_rolled_back(error):
                    time.sleep(random.uniform(0, min(0.25, 0.002 * 2**attempt)))
                elif may_repeat_loss and _was_lost(error):
                    may_repeat_loss = False
                else:
                    # Its own words hold the statement and its parameters.
                    raise translated(error) from None


def _transaction(engine: Engine, work: Callable[[Connection], T], *, write: bool, single: bool) -> T:
    if single and engine.dialect.name == "postgresql":
        # One statement needs no transaction around it, and here that saves two round trips.
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if write and engine.dialect.name == "sqlite":
            begin_writing(connection)
        result = work(connection)
        if write:
            connection.commit()
        return result


def begin_writing(connection: Connection) -> None:
    """Begin a transaction of SQLite that needs no upgrade later, which could fail at once."""
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


class GivenEngine(Engines):
    """An engine that is the caller's."""

    def __init__(self, engine: Engine) -> None:
        if engine.dialect.is_async:
            raise ConfigurationError("inturn is synchronous: give an Engine, not an AsyncEngine")
        self._engine = engine
        watch_forks(self)

    @contextmanager
    def lend(self) -> Iterator[Engine]:
        """See `Engines.lend`; the caller's pool lets wait as it likes."""
        yield self._engine

    def close(self) -> None:
        """See `Engines.close`: nothing was."""

    def before_fork(self) -> None:
        """See `ForkAware`: the engine is the caller's to close."""

    def after_fork_in_child(self) -> None:
        """See `ForkAware`."""
        _belong_to_parents.append(self._engine.pool)
        self._engine.dispose(close=False)


class OwnEngine(Engines):
    """An engine of our own, for as long as this process lives or until `close`."""

    def __init__(self, url: str | URL, pool_size: int) -> None:
        if pool_size < 1:
            raise ConfigurationError(f"pool_size must be at least 1, not {pool_size}")
        self._url = parse_url(url)
        # A database in memory is its one connection.
        self._pool_size = 1 if _is_in_memory(self._url) else pool_size
        self._turnstile = Turnstile(self._pool_size)
        self._lock = threading.Lock()
        self._closed = False
        self._engine: Engine | None = self._create()
        watch_forks(self)

    @contextmanager
    def lend(self) -> Iterator[Engine]:
        """See `Engines.lend`."""
        turnstile, seconds = self._turnstile, psycopg_connections.POOL_SECONDS
        if not turnstile.enter(seconds):
            raise StoreUnavailableError(
                f"all {self._pool_size} connections were in use for {seconds:g} s; see pool_size"
            )
        try:
            yield self._opened()
        finally:
            turnstile.leave()

    def close(self) -> None:
        """See `Engines.close`."""
        with self._lock:
            self._closed = True
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def before_fork(self) -> None:
        """See `ForkAware`: SQLite in the child must never see a connection of the parent."""
        engine = self._engine
        if engine is not None and engine.dialect.name == "sqlite" and not _is_in_memory(engine.url):
            engine.dispose()

    def after_fork_in_child(self) -> None:
        """See `ForkAware`."""
        if self._engine is not None:
            _belong_to_parents.append(self._engine.pool)
        self._engine = None
        self._lock = threading.Lock()
        self._turnstile = Turnstile(self._pool_size)

    def _opened(self) -> Engine:
        with self._lock:
            if self._closed:
                raise StoreError("this adapter is closed")
            if self._engine is None:
                self._engine = self._create()
            return self._engine

    def _create(self) -> Engine:
        return create_own_engine(self._url, self._pool_size)


class LibpqEngine(OwnEngine):
    """An engine of our own for a URL of PostgreSQLAdapter, read as libpq reads it."""

    def __init__(self, url: str, pool_size: int) -> None:
        self._conninfo = psycopg_connections.conninfo_of(url)
        super().__init__("postgresql+psycopg://", pool_size)

    def _create(self) -> Engine:
        return create_own_engine(self._url, self._pool_size, creator=lambda: psycopg.connect(self._conninfo))


# A parent's connections stay referenced, so that no finalizer of a child ends what is still in use.
_belong_to_parents: list[Any] = []


def create_own_engine(url: URL, pool_size: int, **options: Any) -> Engine:
    """Make an engine as this package wants it, with `pool_size` connections at the most.

    `options` are further ones of `create_engine`. Raises `ConfigurationError` and `MissingDriverError`, which
    do not show the URL.
    """
    try:
        driver = url.get_dialect().driver
        if url.get_dialect().is_async:
            raise ConfigurationError(f"inturn is synchronous, and {url.drivername}:// is not")
        given = _DEFAULTS.get(driver, {})
        options["connect_args"] = {key: value for key, value in given.items() if key not in url.query}
        if url.get_backend_name() in MYSQL:
            # Locks the rows that are written, and not the gaps between them.
            options["isolation_level"] = "READ COMMITTED"
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_use_lifo=True,
            hide_parameters=True,
            **options,
        )
    except ModuleNotFoundError as error:
        raise _missing_driver(url, error) from None
    except exc.NoSuchModuleError:
        raise ConfigurationError(f"SQLAlchemy has no dialect for {url.drivername}://") from None
    except (exc.ArgumentError, TypeError, ValueError):
        raise ConfigurationError(
            f"SQLAlchemy cannot make an engine of this {url.drivername}:// URL"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _enforce_foreign_keys)
    else:
        event.listen(engine, "checkout", _refuse_the_dead)
    return engine


def _missing_driver(url: URL, error: ModuleNotFoundError) -> Exception:
    from inturn.persistence.registry import DRIVERS  # the table of what to install

    missing = (error.name or "").partition(".")[0]
    return MissingDriverError(
        f"{url.drivername}:// needs {missing}, which is not installed: "
        f"pip install '{DRIVERS.get(missing, missing)}'"
    )


def parse_url(url: str | URL) -> URL:
    """Read a URL, without `sqlalchemy+`; raises `ConfigurationError`."""
    try:
        return make_url(url.removeprefix(PREFIX) if isinstance(url, str) else url)
    except (exc.ArgumentError, ValueError):
        raise ConfigurationError(
            "this is not a URL of SQLAlchemy; one looks like "
            "postgresql+psycopg://user:password@host:5432/database, with special characters percent-encoded"
        ) from None


def _is_in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def _enforce_foreign_keys(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


def _refuse_the_dead(connection: Any, _record: object, _fairy: object) -> None:
    """Tell without a round trip: an idle server says nothing, so what it has said is good-bye."""
    if getattr(connection, "closed", 0):
        raise exc.InvalidatePoolError
    # PyMySQL has no public name for its socket; other drivers are asked by their first statement.
    socket = connection if hasattr(connection, "fileno") else getattr(connection, "_sock", None)
    if socket is not None:
        with selectors.DefaultSelector() as selector:
            selector.register(socket.fileno(), selectors.EVENT_READ)
            if selector.select(timeout=0):
                raise exc.InvalidatePoolError


# MySQL's and MariaDB's numbers, after which the same call may succeed later.
_MYSQL_ROLLED_BACK = (1020, 1213)
_MYSQL_LOST = (0, 1053, 1152, 1158, 1159, 1160, 1161, 1927, 2002, 2003, 2006, 2013, 2014, 2055)
_MYSQL_UNAVAILABLE = (1021, 1040, 1041, 1105, 1129, 1203, 1205, 1226, 1290, 1317, 1836, 1969, 3024, 3100)
_MYSQL_NO_SCHEMA = (1049, 1054, 1146)
# Errors whose words are about the account and not about values of a row.
_MYSQL_ACCESS = (1044, 1045, 1142, 1143, 1227, 1698)


def translated(error: exc.SQLAlchemyError) -> StoreError:
    """Say in our words what a driver says in its own, without a statement and without a value."""
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailableError("no connection of the pool was free in time; see pool_size")
    cause = error.orig if isinstance(error, exc.DBAPIError) else None
    if isinstance(cause, psycopg.Error):
        return psycopg_connections.translated(cause)
    if isinstance(cause, sqlite3.Error):
        return sqlite_connections.translated(cause)
    name = type(cause or error).__name__
    code = _mysql_code(cause)
    if code is None:
        if _was_lost(error):
            return StoreUnavailableError(f"the database is not available: {name}")
        return StoreError(f"the database refused: {name}")
    said = f"{name} ({code})"
    if code in _MYSQL_NO_SCHEMA:
        return StoreError(
            f"a database, a table or a column is missing ({code}): call initialize() first, "
            "or run `inturn db upgrade` where there are older tables"
        )
    if code in (*_MYSQL_ROLLED_BACK, *_MYSQL_LOST, *_MYSQL_UNAVAILABLE):
        return StoreUnavailableError(f"MySQL is not available: {said}: {cause and cause.args[-1]}")
    return StoreError(
        f"MySQL refused: {said}{f': {cause.args[-1]}' if cause and code in _MYSQL_ACCESS else ''}"
    )


def _is_duplicate(error: exc.SQLAlchemyError) -> bool:
    if not isinstance(error, exc.IntegrityError):
        return False
    if isinstance(error.orig, psycopg.Error):
        return error.orig.sqlstate == "23505"
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) in _SQLITE_DUPLICATE
    return _mysql_code(error.orig) in (None, 1062)


_SQLITE_DUPLICATE = (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE)


def _was_rolled_back(error: exc.SQLAlchemyError) -> bool:
    """Tell whether the database has undone the transaction because of another one."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else None
    if isinstance(cause, psycopg.Error):
        return (cause.sqlstate or "").startswith("40")
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY_SNAPSHOT
    return _mysql_code(cause) in _MYSQL_ROLLED_BACK


def _was_lost(error: exc.SQLAlchemyError) -> bool:
    """Tell whether the connection is gone, and with it the knowledge of what has happened."""
    if not isinstance(error, exc.DBAPIError):
        return False
    if isinstance(error.orig, psycopg.Error):
        return psycopg_connections.may_repeat(error.orig)
    return error.connection_invalidated or _mysql_code(error.orig) in _MYSQL_LOST


def _mysql_code(cause: BaseException | None) -> int | None:
    """The server's number, or the client library's, of an error of PyMySQL and its kin."""
    if not type(cause).__module__.startswith(("pymysql", "MySQLdb")):
        return None
    code = cause.args[0] if cause is not None and cause.args else None
    return code if isinstance(code, int) else None
