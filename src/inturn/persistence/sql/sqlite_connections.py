"""Where SQLiteAdapter gets its connections, and what becomes of SQLite's errors."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from inturn.errors import ConfigurationError, StoreError, StoreUnavailableError
from inturn.persistence.forks import watch_forks

BUSY_SECONDS = 5.0
"""How long a call waits while another process, or another thread, writes."""

_IDLE_CONNECTIONS = 8


class Connections(ABC):
    """Lends connections, each to one caller at a time."""

    @abstractmethod
    def lend(self, *, write: bool) -> AbstractContextManager[sqlite3.Connection]:
        """Give a connection until the caller is done with it, to one writer at a time."""

    @abstractmethod
    def close(self) -> None:
        """Close what was opened here."""


class FileConnections(Connections):
    """Connections to a file: as many as there are callers at once; each process opens its own."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._idle: list[sqlite3.Connection] = []
        # SQLite lets waiting writers poll, without order. Threads of one process rather queue here.
        self._writer = threading.Lock()
        self._closed = False
        watch_forks(self)

    @contextmanager
    def lend(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        """See `Connections.lend`."""
        if write and not self._writer.acquire(timeout=BUSY_SECONDS):
            raise StoreUnavailableError(f"{self._path} was being written to for {BUSY_SECONDS:g} s")
        try:
            connection = self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            if write:
                self._writer.release()

    def use_wal(self) -> None:
        """Turn on the write-ahead log, with which readers and the one writer do not wait for each other."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                with self.lend(write=True) as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.Error as error:
                # This statement does not wait by itself while another process does the same.
                if _code(error) not in _BUSY or time.monotonic() > deadline:
                    raise translated(error) from error
            time.sleep(0.01)

    def close(self) -> None:
        """See `Connections.close`."""
        self._closed = True
        self.before_fork()

    def before_fork(self) -> None:
        """See `ForkAware`: SQLite in the child must never see a connection of the parent."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # another thread was faster
                return

    def after_fork_in_child(self) -> None:
        """See `ForkAware`."""
        _belong_to_parents.extend(self._idle)
        self._idle = []
        self._writer = threading.Lock()

    def _take(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError("this adapter is closed")
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._closed or len(self._idle) >= _IDLE_CONNECTIONS:
            connection.close()
        else:
            self._idle.append(connection)

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"cannot open {self._path}: its directory must exist and be writable for this user"
            ) from error
        connection.execute("PRAGMA foreign_keys = ON")
        return connection


class OneConnection(Connections):
    """One connection for all: a caller's own, or a database in memory, which is nowhere else."""

    def __init__(self, connection: sqlite3.Connection, *, owned: bool) -> None:
        if getattr(connection, "autocommit", -1) is False:
            raise ConfigurationError(
                "this SQLite connection has autocommit=False, so it is always in a transaction that only you "
                "can end; open it with autocommit=True, or give a URL"
            )
        self._connection = connection
        self._owned = owned
        self._lock = threading.RLock()
        self._process = os.getpid()

    @contextmanager
    def lend(self, *, write: bool) -> Iterator[sqlite3.Connection]:  # noqa: ARG002
        """See `Connections.lend`."""
        if self._process != os.getpid():
            raise StoreError(
                "a SQLite connection does not survive a fork: give the adapter the URL of a file"
            )
        with self._lock:
            yield self._connection

    def close(self) -> None:
        """See `Connections.close`."""
        if self._owned:
            self._connection.close()


# Closing a parent's connection would give up the parent's locks, so those that slipped through stay.
_belong_to_parents: list[sqlite3.Connection] = []


@contextmanager
def transaction(connections: Connections, *, write: bool) -> Iterator[sqlite3.Cursor]:
    """Make what is done in the block one step; SQLite's errors become ours.

    In a transaction that is open already, the caller's, it becomes part of it.
    """
    try:
        with connections.lend(write=write) as connection:
            joins = connection.in_transaction
            begin = "SAVEPOINT inturn" if joins else "BEGIN IMMEDIATE" if write else "BEGIN"
            cursor = connection.cursor()
            cursor.row_factory = sqlite3.Row
            cursor.execute(begin)
            try:
                yield cursor
                cursor.execute("RELEASE inturn" if joins else "COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite itself ends it after some errors
                    cursor.execute("ROLLBACK TO inturn" if joins else "ROLLBACK")
                    if joins:
                        cursor.execute("RELEASE inturn")
                raise
            finally:
                cursor.close()
    except sqlite3.Error as error:
        raise translated(error) from error


_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_UNAVAILABLE = (*_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what SQLite adds for experts


def translated(error: sqlite3.Error) -> StoreError:
    """Say in our words what SQLite says in its own, which never quotes a value."""
    if _code(error) in _UNAVAILABLE:
        return StoreUnavailableError(f"SQLite is not available: {error}")
    if str(error).startswith(("no such table", "no such column")):
        return StoreError(
            f"SQLite refused: {error}; call initialize() first, or run `inturn db upgrade` where there are "
            "older tables"
        )
    return StoreError(f"SQLite refused: {error}")
