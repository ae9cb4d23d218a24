"""Telemetry: the figures of one worker, all its processes together, and of beat, for Prometheus to fetch.

Whatever the pool, each process counts in files of its own (the multiprocess mode of prometheus_client), and
the main process adds them up when it is asked: a child that is killed takes along nothing that it counted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer

from celery import signals
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Metric,
    mmap_dict,
    multiprocess,
    values,
)
from prometheus_client.process_collector import ProcessCollector

from inturn.metrics import serve_metrics, start_counting
from inturn.turns.backlog import BacklogCollector, BacklogReader
from inturn.turns.connection import connect

from .celery import settings

# These have no types.
_values: Any = values
_read: Any = multiprocess.MultiProcessCollector
_File: Any = mmap_dict.MmapedDict

_STEM = "inturn-metrics-"
_BURIED = "ended"
"""In a file's name, where others have the ID of their process: all that have ended."""


class Telemetry:
    """The figures of this worker, from before its pool is made until its main process ends."""

    def __init__(self) -> None:
        self._main = os.getpid()
        self._server: WSGIServer | None = None
        self._files = _CountingFiles()
        counted = CollectorRegistry()
        start_counting(counted).begin_at_zero()
        # Of processes that have ended nothing is added: what was in their hands is in nobody's.
        text = "Tasks that this worker can work on at the same time."
        self._slots = Gauge("inturn_slots", text, registry=counted, multiprocess_mode="livesum")
        text = "Tasks that this worker works on."
        self._busy = Gauge("inturn_slots_busy", text, registry=counted, multiprocess_mode="livesum")
        signals.task_prerun.connect(self._begin_task)
        signals.task_postrun.connect(self._end_task)

    def serve(self, port: int, slots: int) -> None:
        """Answer Prometheus; `slots` is how many tasks the pool works on at the same time."""
        self._slots.set(slots)
        registry = CollectorRegistry()
        registry.register(self._files)
        ProcessCollector(registry=registry)
        self._server = serve_metrics(registry, settings.metrics_host, port)

    def leave_to_main(self) -> None:
        """Close the port in a pool process: it must be free once the main process is gone.

        And bury those whose places are taken: perhaps nobody ever asks for the figures.
        """
        if os.getpid() != self._main:
            if self._server is not None:
                self._server.socket.close()
            self._files.bury()

    def close(self) -> None:
        """Stop answering, and remove the files; does nothing in a pool process."""
        if os.getpid() == self._main:
            if self._server is not None:
                self._server.shutdown()
                self._server.server_close()
            self._files.remove()

    def _begin_task(self, **_: Any) -> None:
        self._busy.inc()

    def _end_task(self, **_: Any) -> None:
        self._busy.dec()


class _CountingFiles:
    """A directory of counters, one file for each process and type, and what they come to."""

    def __init__(self) -> None:
        _remove_left_behind()
        self._lock = threading.Lock()
        self._directory, self._locked = _make_directory()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._directory)
        # It looks at that variable when it is imported, and Celery, by way of Flower's command, has done so.
        _values.ValueClass = _values.MultiProcessValue()

    def collect(self) -> Iterator[Metric]:
        """All figures, for a registry."""
        with self._lock, self._alone():
            self._bury()
            found = list(_read(None, str(self._directory)).collect())
        yield from found

    def bury(self) -> None:
        """Bury those that have ended, unless somebody does just now; for any process."""
        with suppress(BlockingIOError), self._alone(fcntl.LOCK_NB):
            self._bury()

    def remove(self) -> None:
        """Remove the directory."""
        with self._lock:
            shutil.rmtree(self._directory, ignore_errors=True)

    @contextmanager
    def _alone(self, how: int = 0) -> Iterator[None]:
        """Keep all other processes from burying, and from reading what is half buried."""
        with (self._directory / "burying").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | how)
            yield

    def _bury(self) -> None:
        """Put what processes have counted that have ended into one file of each type, and remove theirs."""
        for path in self._directory.glob("*.db"):
            kind, _, owner = path.stem.rpartition("_")
            if owner == _BURIED or _is_alive(int(owner)):
                continue
            if not kind.startswith("gauge"):
                with closing(_File(str(path.with_stem(f"{kind}_{_BURIED}")))) as ended:
                    for key, value, _, _ in _File.read_all_values_from_file(str(path)):
                        ended.write_value(key, ended.read_value(key)[0] + value, 0.0)
            path.unlink()


class _BeatTelemetry:
    """What waits in all sessions together, and the tasks that beat asks for; answered from the first on."""

    def __init__(self, port: int) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        redis = connect(settings, connections=2, timeout=2.0, retries=1)
        registry.register(BacklogCollector(BacklogReader(redis, settings)))
        text = "Tasks that beat has asked for."
        self._tasks = Counter("inturn_beat_tasks", text, ["task"], registry=registry)
        signals.after_task_publish.connect(self._count)
        serve_metrics(registry, settings.metrics_host, port)

    def _count(self, sender: str = "", **_: Any) -> None:
        self._tasks.labels(sender).inc()


_telemetry: Telemetry | _BeatTelemetry | None = None


@signals.celeryd_init.connect
def _start(**_: Any) -> None:
    # Before the pool is made, so that its processes know where to count.
    global _telemetry
    if settings.metrics_port is not None:
        _telemetry = Telemetry()


@signals.worker_ready.connect
def _serve_worker(sender: Any = None, **_: Any) -> None:
    if isinstance(_telemetry, Telemetry) and settings.metrics_port is not None:
        _telemetry.serve(settings.metrics_port, sender.controller.concurrency)


@signals.worker_process_init.connect
def _leave_to_main(**_: Any) -> None:
    if isinstance(_telemetry, Telemetry):
        _telemetry.leave_to_main()


@signals.worker_shutdown.connect
def _close(**_: Any) -> None:
    if isinstance(_telemetry, Telemetry):
        _telemetry.close()


@signals.beat_init.connect
def _start_beat(**_: Any) -> None:
    global _telemetry
    if settings.metrics_port is not None:
        _telemetry = _BeatTelemetry(settings.metrics_port)


def _make_directory() -> tuple[Path, int]:
    """Make a directory, locked until this process and all that are forked from it have ended."""
    made = Path(tempfile.mkdtemp(prefix=f".{_STEM}"))
    lock = os.open(made / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Only now can others see it: what they find is locked.
    return made.rename(made.with_name(made.name.removeprefix("."))), lock


def _remove_left_behind() -> None:
    """Remove the directories of workers that were killed."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_STEM}*"):
        with suppress(OSError):  # somebody else's, or in use
            lock = os.open(directory / "lock", os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory)
            finally:
                os.close(lock)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
