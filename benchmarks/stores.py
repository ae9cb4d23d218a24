"""The stores that are measured, each on a server of its own, with a counter of the bytes it writes."""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from redis import Redis

from inturn.embedded.postgres import EmbeddedPostgres
from inturn.embedded.valkey import EmbeddedValkey
from inturn.persistence import PersistenceAdapter, open_adapter
from inturn.persistence.archiving import ArchivingAdapter

Counter = Callable[[], int]


@dataclass(frozen=True)
class Store:
    """An adapter that is initialised, on `server`.

    `counted` is an adapter on the same store, and `counter` tells how many bytes were written through it so
    far; `measured` says where they were seen. None: nothing is written anywhere.
    """

    name: str
    server: str
    adapter: PersistenceAdapter
    measured: str = ""
    counted: PersistenceAdapter | None = None
    counter: Counter | None = None


@contextmanager
def memory() -> Iterator[Store]:
    with open_adapter("memory://") as adapter:
        yield Store("memory", "this process", adapter)


@contextmanager
def sqlite(name: str = "sqlite", prefix: str = "") -> Iterator[Store]:
    with data_directory() as directory, open_adapter(f"{prefix}sqlite:///{directory}/sessions.db") as adapter:
        server = f"SQLite {sqlite3.sqlite_version}"
        yield Store(name, server, adapter, "files", adapter, written_to_files)


@contextmanager
def archiving() -> Iterator[Store]:
    with data_directory() as directory:
        hot, archive = (f"sqlite:///{directory}/{name}.db" for name in ("hot", "archive"))
        with ArchivingAdapter(hot, archive) as adapter:
            server = f"two of SQLite {sqlite3.sqlite_version}"
            yield Store("archiving", server, adapter, "files", adapter, written_to_files)


@contextmanager
def postgresql(name: str = "postgresql", prefix: str = "postgresql") -> Iterator[Store]:
    # Without fsync, see data_directory. Without full page writes, which belong to checkpoints, not to turns.
    with ExitStack() as stack:
        directory = stack.enter_context(data_directory())
        server = stack.enter_context(EmbeddedPostgres(directory / "postgres", fsync=False))
        adapter = stack.enter_context(open_adapter(prefix + server.url.removeprefix("postgresql")))
        log = stack.enter_context(psycopg.connect(server.url, autocommit=True))

        def written() -> int:
            row = log.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
            assert row is not None
            return int(row[0])

        version = f"PostgreSQL {log.info.server_version // 10000}.{log.info.server_version % 10000}"
        yield Store(name, version, adapter, "WAL", adapter, written)


@contextmanager
def redis() -> Iterator[Store]:
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedValkey(stack.enter_context(data_directory())))
        adapter = stack.enter_context(open_adapter(server.url))
        with Redis.from_url(server.url) as client:
            version = f"Valkey {client.info('server')['valkey_version']}"
        yield Store("redis", version, adapter, "sent", *_sent(stack, server.url))


@contextmanager
def mongodb() -> Iterator[Store]:
    from tests.servers_mongodb import mongodb

    named = bool(os.environ.get("MONGODB_URL"))
    with ExitStack() as stack:
        url = stack.enter_context(mongodb(stack.enter_context(data_directory())))
        database = {"database_name": f"inturn_benchmark_{secrets.token_hex(4)}"}
        adapter = stack.enter_context(open_adapter(url, **database))
        # A replica set tells its clients where it really is.
        sent = () if named else _sent(stack, f"{url}?directConnection=true", **database)
        yield Store("mongodb", "MongoDB" if named else "SecantusDB, no MongoDB", adapter, "sent", *sent)


@contextmanager
def opensearch() -> Iterator[Store]:
    from tests.servers_opensearch import opensearch

    named = bool(os.environ.get("OPENSEARCH_URL"))
    with ExitStack() as stack:
        url = stack.enter_context(opensearch())
        indices = {"indices": {"sessions": f"inturn_benchmark_{secrets.token_hex(4)}"}}
        adapter = stack.enter_context(open_adapter(url, **indices))
        sent = () if named else _sent(stack, url, **indices)
        yield Store(
            "opensearch", "OpenSearch" if named else "osmem-server, no OpenSearch", adapter, "sent", *sent
        )


STORES: dict[str, Callable[[], AbstractContextManager[Store]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "postgresql": postgresql,
    "sqlalchemy": partial(postgresql, "sqlalchemy", "sqlalchemy+postgresql+psycopg"),
    "sqlalchemy-sqlite": partial(sqlite, "sqlalchemy-sqlite", "sqlalchemy+"),
    "redis": redis,
    "mongodb": mongodb,
    "opensearch": opensearch,
    "archiving": archiving,
}


class Proxy:
    """Passes bytes to a server and back, one connection after another or side by side, and counts them."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            for source, target, counts in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=(source, target, counts), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if counts:
                    with self._lock:
                        self.sent += len(data)
                target.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            target.close()


def _sent(stack: ExitStack, url: str, **options: Any) -> tuple[PersistenceAdapter, Counter]:
    """Another adapter on the store at `url`, and the counter of the bytes that it sends there."""
    parts = urlsplit(url)
    proxy = stack.enter_context(closing(Proxy(parts.hostname or "127.0.0.1", parts.port or 0)))
    through = parts._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
    return stack.enter_context(open_adapter(through, **options)), lambda: proxy.sent


@contextmanager
def data_directory() -> Iterator[Path]:
    """A directory for the data of servers."""
    # In memory where there is such a place: the disk's mood would hide what is measured, and costs the same
    # at every size.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="inturn-benchmark-", dir=memory) as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL does not run as root, so it runs as somebody else
        yield directory


def written_to_files() -> int:
    """What this process has written to files; 0 where the system does not tell."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        return 0
    return int(dict(line.split(": ") for line in text.splitlines())["wchar"])
