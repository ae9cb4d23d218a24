"""A TCP proxy in a process of its own that cuts, delays and loses what it passes on.

`python -m tests.faults.proxy redis=6379 postgres=5432` writes one line of JSON with its own ports and then
takes a command from each line of its input: `cut redis` closes all connections to it; `lose redis 3` passes
the next requests on and closes three connections instead of answering; `delay redis 0.3 5` holds every
answer back by 0.3 seconds, for 5 seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

HOST = "127.0.0.1"


class Link:
    """The way to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()
        self._lose = 0
        self._delay = 0.0
        self._until = 0.0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Close all connections, with a reset where something is unread."""
        for writer in list(self._open):
            writer.transport.abort()

    def lose(self, answers: int) -> None:
        """Close a connection instead of passing an answer on, so many times."""
        self._lose = answers

    def delay(self, seconds: float, duration: float) -> None:
        """Hold every answer back."""
        self._delay, self._until = seconds, asyncio.get_running_loop().time() + duration

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection(HOST, self._port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, to_writer}
        self._open |= ends
        try:
            ways = [
                asyncio.create_task(self._pass(reader, to_writer, is_answer=False)),
                asyncio.create_task(self._pass(to_reader, writer, is_answer=True)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if is_answer and self._lose > 0:
                    self._lose -= 1
                    return
                if is_answer and asyncio.get_running_loop().time() < self._until:
                    await asyncio.sleep(self._delay)
                writer.write(data)
                await writer.drain()


async def main(targets: list[str]) -> None:
    """Serve until the input ends."""
    links = {name: Link(int(port)) for name, _, port in (target.partition("=") for target in targets)}
    for link in links.values():
        await link.start()
    print(json.dumps({name: link.port for name, link in links.items()}), flush=True)
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        action, name, *numbers = line.decode().split()
        link = links[name]
        if action == "cut":
            link.cut()
        elif action == "lose":
            link.lose(int(numbers[0]))
        else:
            link.delay(float(numbers[0]), float(numbers[1]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
