"""Where PostgreSQLAdapter gets its connections, and what becomes of psycopg's errors."""

from __future__ import annotations

import os
import select
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from inturn.errors import ConfigurationError, StoreError, StoreUnavailableError
from inturn.persistence.forks import watch_forks

T = TypeVar("T")
PgConnection = psycopg.Connection[Any]

POOL_SECONDS = 10.0
"""How long a call waits for a connection of the pool, and so for a server that is away."""

DEFAULTS: dict[str, Any] = {
    "application_name": "inturn",
    "connect_timeout": "5",
    # A server that vanishes without a word (power, network) is given up after about half a minute.
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""Parameters of libpq for connections of our own, where the URL gives no others."""


class Connections(ABC):
    """Lends connections, each to one caller at a time."""

    reconnects = True
    """Whether a call that lost its connection may get another one."""

    @abstractmethod
    def lend(self) -> AbstractContextManager[PgConnection]:
        """Give a connection until the caller is done with it."""

    @abstractmethod
    def close(self) -> None:
        """Close what was opened here."""

    def run(
        self,
        work: Callable[[PgConnection], T],
        *,
        repeatable: bool,
        passing: type[psycopg.Error] | None = None,
    ) -> T:
        """Return what `work` makes of a connection; once more on another one if that is lost.

        psycopg's errors become ours, but for those of the class `passing`.
        """
        tries = 2 if repeatable and self.reconnects else 1
        while True:
            tries -= 1
            try:
                with self.lend() as connection, _atomic(connection):
                    return work(connection)
            except psycopg.Error as error:
                if tries and may_repeat(error):
                    continue
                if passing is not None and isinstance(error, passing):
                    raise
                raise translated(error) from _cause(error)


class Pool(Connections):
    """A pool that is the caller's."""

    def __init__(self, pool: ConnectionPool[PgConnection]) -> None:
        self._pool = pool

    @contextmanager
    def lend(self) -> Iterator[PgConnection]:
        """See `Connections.lend`; connections that died in the pool are thrown away."""
        pool = self._open_pool()
        while True:
            connection = pool.getconn()
            if _is_alive(connection):
                break
            connection.close()
            pool.putconn(connection)
        try:
            yield connection
        finally:
            pool.putconn(connection)

    def close(self) -> None:
        """See `Connections.close`: nothing was."""

    def _open_pool(self) -> ConnectionPool[PgConnection]:
        return self._pool


class OwnPool(Pool):
    """A pool of our own, opened by the process that first needs it."""

    def __init__(self, url: str, size: int) -> None:
        self._conninfo = conninfo_of(url)
        if size < 1:
            raise ConfigurationError(f"pool_size must be at least 1, not {size}")
        self._size = size
        self._opened: ConnectionPool[PgConnection] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._refusal: psycopg.Error | None = None
        watch_forks(self)

    @contextmanager
    def lend(self) -> Iterator[PgConnection]:
        """See `Connections.lend`."""
        try:
            with super().lend() as connection:
                yield connection
        except PoolTimeout as timeout:
            # The pool connects behind our back, and only its log knows why it could not.
            if self._refusal is None:
                raise
            raise PoolTimeout(f"{timeout}: {self._refusal}") from self._refusal

    def close(self) -> None:
        """See `Connections.close`."""
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def before_fork(self) -> None:
        """See `ForkAware`: nothing, for libpq's connections may stay open in the parent."""

    def after_fork_in_child(self) -> None:
        """See `ForkAware`."""
        if self._opened is not None:
            _belong_to_parents.append(self._opened)
        self._opened = None
        self._lock = threading.Lock()

    def _open_pool(self) -> ConnectionPool[PgConnection]:
        with self._lock:
            if self._closed:
                raise StoreError("this adapter is closed")
            if self._opened is None:
                self._opened = ConnectionPool(
                    self._conninfo,
                    connection_class=self._remembering(),
                    kwargs={"autocommit": True},
                    min_size=1,
                    max_size=self._size,
                    timeout=POOL_SECONDS,
                    # psycopg doubles the pause between attempts for this long. Every call that finds the pool
                    # empty starts new attempts, so a server that is back is found within a second.
                    reconnect_timeout=1.0,
                    open=True,
                    name="inturn",
                )
            return self._opened

    def _remembering(self) -> type[PgConnection]:
        """The class of our connections: one that remembers why the last attempt to connect failed."""
        pool = self

        class Connection(psycopg.Connection[Any]):
            @classmethod
            def connect(cls, conninfo: str = "", **options: Any) -> PgConnection:  # type: ignore[override]
                try:
                    connection = super().connect(conninfo, **options)
                except psycopg.Error as refusal:
                    pool._refusal = refusal
                    raise
                pool._refusal = None
                return connection

        return Connection


class OneConnection(Connections):
    """A connection that is the caller's, used by one thread at a time."""

    reconnects = False

    def __init__(self, connection: PgConnection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._process = os.getpid()

    @contextmanager
    def lend(self) -> Iterator[PgConnection]:
        """See `Connections.lend`."""
        if self._process != os.getpid():
            raise StoreError("a connection does not survive a fork: give the adapter a URL")
        with self._lock:
            yield self._connection

    def close(self) -> None:
        """See `Connections.close`: nothing was."""


# Pools of a parent process stay referenced: their finalizers would wait for threads that were not forked.
_belong_to_parents: list[ConnectionPool[PgConnection]] = []


@contextmanager
def _atomic(connection: PgConnection) -> Iterator[None]:
    """Make what is done in the block one step, whatever mode somebody's connection is in."""
    if connection.autocommit and connection.pgconn.transaction_status == TransactionStatus.IDLE:
        yield  # each call is one statement
    else:
        with connection.transaction():
            yield


def _is_alive(connection: PgConnection) -> bool:
    """Tell without a round trip: an idle server says nothing, so what it has said is good-bye."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def conninfo_of(url: str) -> str:
    """What libpq connects with, for a URL; raises `ConfigurationError`."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # libpq's own words may quote the password.
        raise ConfigurationError(
            "this is not a PostgreSQL URL; one looks like postgresql://user:password@host:5432/database, "
            "with special characters percent-encoded"
        ) from None
    return make_conninfo(**{**DEFAULTS, **given})


# SQLSTATEs, or their classes, after which the same call may succeed later.
_UNAVAILABLE = ("08", "25006", "25P03", "25P04", "40", "53", "55006", "55P03", "57", "58")
# Of these the ones that end at once on another connection, or by another attempt.
_REPEATABLE = ("08", "40", "57P01", "57P02", "57P03", "57P05")
_NO_SCHEMA = ("3F000", "42P01", "42P10", "42703")
_TELLING_VALUES = ("22", "23")


def translated(error: psycopg.Error) -> StoreError:
    """Say in our words what psycopg says in its own."""
    state = error.sqlstate or ""
    if state.startswith(_NO_SCHEMA):
        return StoreError(
            f"a table or a column is missing (SQLSTATE {state}): call initialize() first, "
            "or run `inturn db upgrade` where there are older tables"
        )
    if state.startswith(_TELLING_VALUES):
        said = ""
    else:
        said = ": " + (error.diag.message_primary or " ".join(str(error).split()))
    name = f"{type(error).__name__}{state and f' (SQLSTATE {state})'}{said}"
    if state.startswith(_UNAVAILABLE) or _is_lost(error) or isinstance(error, _POOL_ERRORS):
        return StoreUnavailableError(f"PostgreSQL is not available: {name}")
    return StoreError(f"PostgreSQL refused: {name}")


_POOL_ERRORS = (PoolTimeout, PoolClosed, TooManyRequests)


def _is_lost(error: psycopg.Error) -> bool:
    """Tell whether a connection was lost, or not made: only then there is no SQLSTATE."""
    return (
        error.sqlstate is None
        and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        and not isinstance(error, _POOL_ERRORS)
    )


def may_repeat(error: psycopg.Error) -> bool:
    """Tell whether another attempt at once, on another connection, may succeed."""
    return _is_lost(error) or (error.sqlstate or "").startswith(_REPEATABLE)


def _cause(error: psycopg.Error) -> psycopg.Error | None:
    """The error, unless it quotes values of a row: it would end in a log."""
    return None if (error.sqlstate or "").startswith(_TELLING_VALUES) else error
