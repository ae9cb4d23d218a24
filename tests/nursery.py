"""The nursery: starts processes by forking one that has imported everything heavy already.

A worker takes more than a second of a processor to import its libraries, and a run of the tests starts
hundreds. Each child is a process of its own from the fork on: the leader of its session, with its own
environment, folder and output; it runs the command line as `python -m` does. Orders come as lines of JSON on
the standard input (`{"name", "argv", "cwd", "env", "log"}`), what happened goes to the standard output
(`["started", name, pid]`, `["ended", pid, status]`). When its parent dies, the nursery does, and its children
with it.
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

_PR_SET_PDEATHSIG = 1


def main(modules: list[str]) -> None:
    """Import these modules, then take orders until the input ends."""
    for name in modules:
        importlib.import_module(name)
    ended, end = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(end)
    say("ready")
    while True:
        ready, _, _ = select.select([0, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            say("ended", pid, os.waitstatus_to_exitcode(status))
        if 0 in ready:
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
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.path[0] = order["cwd"]
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
    """Tell whoever gives the orders."""
    os.write(1, (json.dumps(words) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
