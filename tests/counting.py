"""CountingProxy: a TCP proxy that counts what is asked of a Redis or PostgreSQL server, and how often."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

from redis import Redis

Names = Callable[[list[str]], str | None]
"""What a Redis command is counted as; None: not at all."""


class Reader(ABC):
    """Reads what one connection sends, in pieces of any length, and gives what the calls in it are named."""

    def __init__(self) -> None:
        self._unread = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """Give the names of all calls that are whole with this."""
        self._unread += data
        while (found := self._first(self._unread)) is not None:
            name, length = found
            self._unread = self._unread[length:]
            if name is not None:
                yield name

    @abstractmethod
    def _first(self, data: bytes) -> tuple[str | None, int] | None:
        """The name and the length of what stands first; None: it is not whole yet."""


class RedisReader(Reader):
    """Reads commands of Redis."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def _first(self, data: bytes) -> tuple[str | None, int] | None:
        parts: list[str] = []
        end = data.find(b"\r\n")
        if end < 0:
            return None
        for _ in range(int(data[1:end])):
            begin = end + 2
            end = data.find(b"\r\n", begin)
            if end < 0:
                return None
            begin, end = end + 2, end + 2 + int(data[begin + 1 : end])
            if len(data) < end + 2:
                return None
            parts.append(data[begin:end].decode(errors="replace"))
        return self._names(parts), end + 2


class PostgresReader(Reader):
    """Reads statements that are executed, and names them by their first word."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = False
        self._statements: dict[bytes, str] = {}
        self._bound = ""

    def _first(self, data: bytes) -> tuple[str | None, int] | None:
        place = 1 if self._begun else 0
        if len(data) < place + 4:
            return None
        length = place + int.from_bytes(data[place : place + 4], "big")
        if len(data) < length:
            return None
        body = data[place + 4 : length]
        if not self._begun:
            # What asks for encryption, or cancels, has a number of its own where the version stands.
            self._begun = body[:2] == b"\x00\x03"
            return None, length
        return self._name(data[:1], body), length

    def _name(self, kind: bytes, body: bytes) -> str | None:
        first, _, rest = body.partition(b"\0")
        if kind == b"P":
            self._statements[first] = _first_word(rest)
        elif kind == b"B":
            self._bound = self._statements[rest.partition(b"\0")[0]]
        elif kind == b"E":
            return self._bound
        elif kind == b"Q":
            return _first_word(first)
        return None


def _first_word(statement: bytes) -> str:
    return statement.split(maxsplit=1)[0].rstrip(b";").decode().upper()


class CountingProxy:
    """Forwards to a port of this machine, and counts.

    A round trip is all that a connection sends before it has an answer, if some of it is counted. What the
    server has done was counted before.
    """

    def __init__(self, port: int, reader: Callable[[], Reader]) -> None:
        self._target = port
        self._reader = reader
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._round_trips = 0

    def take(self) -> tuple[dict[str, int], int]:
        """The calls since the last time, by name, and the round trips; counting begins anew."""
        with self._lock:
            taken = dict(sorted(self._calls.items())), self._round_trips
            self._calls.clear()
            self._round_trips = 0
            return taken

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                counted = _Counted(self._reader())
                for source, sink, note in (
                    (client, server, lambda data, counted=counted: self._note(counted, data)),
                    (server, client, lambda _, counted=counted: counted.answer()),
                ):
                    threading.Thread(target=_pass, args=(source, sink, note), daemon=True).start()

    def _note(self, counted: _Counted, data: bytes) -> None:
        with self._lock:
            for name in counted.reader.feed(data):
                self._calls[name] += 1
                self._round_trips += not counted.on_its_way
                counted.on_its_way = True


class _Counted:
    """A connection, and whether something that was counted waits for its answer."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.on_its_way = False

    def answer(self) -> None:
        self.on_its_way = False


def _pass(source: socket.socket, sink: socket.socket, note: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            note(data)
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


class ScriptWatch:
    """Counts the commands that scripts run inside a Redis server, by the name of the script."""

    def __init__(self, redis: Redis, names: Names) -> None:
        self._redis = redis
        self._names = names
        self._counts: Counter[str] = Counter()
        self._script: str | None = None
        self._seen: list[str] = []
        self._changed = threading.Condition()

    def take(self) -> dict[str, int]:
        """What scripts have done since the last time; counting begins anew."""
        mark = f"mark {id(self)} {len(self._seen)}"
        self._redis.echo(mark)
        with self._changed:
            assert self._changed.wait_for(lambda: mark in self._seen, timeout=60)
            taken = dict(sorted(self._counts.items()))
            self._counts.clear()
            return taken

    def __enter__(self) -> Self:
        self._monitor: Any = self._redis.monitor()  # type: ignore[no-untyped-call]
        self._monitor.__enter__()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._redis.echo("end")
        self._thread.join(timeout=60)

    def _listen(self) -> None:
        for each in self._monitor.listen():
            words = str(each["command"]).split(" ")
            with self._changed:
                if each["client_type"] == "lua":
                    if self._script is not None:
                        self._counts[self._script] += 1
                elif words[0].upper() == "ECHO":
                    self._seen.append(" ".join(words[1:]))
                    self._changed.notify_all()
                    if words[1:] == ["end"]:
                        break
                else:
                    self._script = self._names(words)
        self._monitor.__exit__(None, None, None)
