"""The nursery: starts the run's processes by forking one that has imported everything heavy already.

A worker takes seconds of a processor to import, and the run starts hundreds of them. Each child is a process
of its own from the fork on: it becomes the leader of its session, reads its environment, imports the worker
and runs Celery's own command line. Orders come as lines of JSON on the standard input
(`{"name", "argv", "env", "log"}`), what happened goes to the standard output (`["started", name, pid]`,
`["ended", pid, status]`). When the run dies, the nursery does, and its children with it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import select
import signal
import sys
from typing import Any

HEAVY = (
    *("celery.bin.celery", "celery.apps.worker", "celery.apps.beat", "celery.concurrency.thread"),
    *("celery.worker.consumer", "celery.app.amqp", "celery.backends.redis", "kombu.transport.redis"),
    *("redis", "psycopg", "psycopg_pool", "inturn.client", "inturn.agent", "inturn.persistence.postgresql"),
    *("inturn.turns", "inturn.channels", "inturn.logs", "structlog", "http.client", "http.server"),
    *("inturn.persistence.manager", "inturn.persistence.inbox", "sqlalchemy.orm", "alembic.command"),
    *("tests.channels", "tests.faults.load"),
)


def main() -> None:
    """Take orders until the input ends."""
    for name in HEAVY:
        importlib.import_module(name)
    say("ready")
    while True:
        ready, _, _ = select.select([0], [], [], 0.05)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            say("ended", pid, os.waitstatus_to_exitcode(status))
        if ready:
            line = read_line()
            if not line:
                return
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                become(order)
            say("started", order["name"], pid)


def become(order: dict[str, Any]) -> None:
    """In the child: run the command; it ends as any program does."""
    os.setsid()
    die_with_parent = 1
    ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL, 0, 0, 0)
    os.environ.update(order["env"])
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    module, *arguments = order["argv"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    raise SystemExit


def read_line() -> bytes:
    """One order, unbuffered: what follows must still be seen by `select`."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line


def say(*words: Any) -> None:
    """Tell the run."""
    os.write(1, (json.dumps(words) + "\n").encode())


if __name__ == "__main__":
    main()
