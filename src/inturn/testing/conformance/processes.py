"""The kit's other processes: they open the store by themselves, start at one moment, and can be killed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import pytest

from inturn.persistence.adapter import PersistenceAdapter
from inturn.testing.conformance.base import Conformance, Reopen

PATIENCE = 120.0
"""Seconds to wait for another process before the test fails."""

Tell: TypeAlias = Callable[[Any], None]
Work: TypeAlias = Callable[..., None]
"""`work(adapter, tell, *arguments)`, a function of a module: what it tells is received by the test."""

# Forked from a server that has opened nothing: as good as a new interpreter, and there at once.
_context = multiprocessing.get_context("forkserver")


class ProcessConformance(Conformance):
    """Tests that need other processes."""

    @pytest.fixture
    def elsewhere(self, adapter: PersistenceAdapter, reopen: Reopen | None) -> Reopen:
        """Open the store, in another process too."""
        if reopen is None:
            why = "there is no fixture `reopen`" if adapter.durable else "this store is not durable"
            pytest.skip(f"needs the store in other processes, and {why}")
        try:
            pickle.dumps(reopen)
        except (pickle.PicklingError, AttributeError, TypeError):
            pytest.skip(
                "needs the store in other processes, and `reopen` cannot be pickled: "
                "functools.partial(MyAdapter, path) can, a lambda cannot"
            )
        return reopen


class Process:
    """A process that works on the store, and tells what it did."""

    def __init__(self, elsewhere: Reopen, work: Work, *arguments: Any) -> None:
        self._channel, theirs = _context.Pipe()
        _context.set_forkserver_preload([__name__])
        self._process = _context.Process(
            target=_run, args=(theirs, elsewhere, work, arguments), daemon=True, name=work.__name__
        )
        self._process.start()
        theirs.close()

    def begin(self) -> None:
        """Let it work; before that it opens the store and waits."""
        assert self.told() == "ready"
        self._channel.send("begin")

    def told(self) -> Any:
        """The next thing it tells."""
        for told in self._rest():
            return told
        raise AssertionError(f"{self._process.name} ended; see its own report")

    def everything_told(self) -> list[Any]:
        """All that it tells until its end, which must be a good one."""
        told = list(self._rest())
        self._process.join(PATIENCE)
        assert self._process.exitcode == 0, f"{self._process.name} failed; see its own report"
        return told

    def kill(self) -> list[Any]:
        """End it where it stands; gives what it had told."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        return list(self._rest())

    def close(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.join(PATIENCE)
        self._process.close()
        self._channel.close()

    def _rest(self) -> Iterator[Any]:
        try:
            while True:
                assert self._channel.poll(PATIENCE), f"{self._process.name} tells nothing"
                yield self._channel.recv()
        except (EOFError, ConnectionResetError):
            return


@contextmanager
def processes(elsewhere: Reopen, work: Work, arguments: Sequence[tuple[Any, ...]]) -> Iterator[list[Process]]:
    """A process for each of `arguments`; all have opened the store before the first begins to work."""
    with ExitStack() as stack:
        started = []
        for each in arguments:
            process = Process(elsewhere, work, *each)
            stack.callback(process.close)
            started.append(process)
        for process in started:
            process.begin()
        yield started


def _run(channel: Connection, elsewhere: Reopen, work: Work, arguments: tuple[Any, ...]) -> None:
    with elsewhere() as adapter:
        channel.send("ready")
        channel.recv()
        work(adapter, channel.send, *arguments)
