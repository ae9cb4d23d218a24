"""The MongoDB the tests talk to: a real one, named by the environment, or a re-implementation of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from inturn.embedded.ports import free_port
from inturn.embedded.tether import tethered
from tests.waiting import wait_until


@contextmanager
def mongodb(directory: Path) -> Iterator[str]:
    """Give the URL of a MongoDB: `MONGODB_URL` if it names one, else that of a SecantusDB.

    SecantusDB speaks MongoDB's protocol over a storage engine that is MongoDB's too, and is no mongod.
    """
    named = os.environ.get("MONGODB_URL", "")
    if named.startswith(("mongodb://", "mongodb+srv://")):
        yield named
    else:
        with OwnMongoDB(directory) as server:
            yield server.url


class OwnMongoDB:
    """A SecantusDB that the test may stop, kill and start again; a replica set of one, or a single server.

    It is under the GPL: a program that tests start, and never part of ours.
    """

    def __init__(self, directory: Path, *, standalone: bool = False) -> None:
        self._port = free_port()
        self._command = Path(sys.executable).with_name("secantusd-py")
        if not self._command.exists():
            pytest.skip("SecantusDB has no wheel for this Python; name a server with MONGODB_URL")
        self._arguments = ["--port", str(self._port), "--storage-path", str(directory), "--cache-size", "64M"]
        # As a mongod does, where it acknowledges a write of a majority.
        self._arguments += ["--sync-on-commit"]
        self._arguments += ["--standalone"] if standalone else []
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"mongodb://127.0.0.1:{self._port}/"

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self._process is not None:
            return
        command = tethered([str(self._command), "--log-level", "ERROR", *self._arguments])
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with MongoClient[dict[str, object]](self.url, serverSelectionTimeoutMS=200) as client:
            wait_until(lambda: self._answers(client), timeout=60, what="SecantusDB to answer")

    def kill(self) -> None:
        """End it at once, with whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self, client: MongoClient[dict[str, object]]) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "SecantusDB has ended"
        try:
            client.admin.command("ping")
        except PyMongoError:
            return False
        return True

    def __enter__(self) -> OwnMongoDB:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
