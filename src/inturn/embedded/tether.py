"""Tie a child process to its parent: when the parent dies, the child gets a signal.

Run as a script, it ties itself and becomes the command. That way no Python code runs between fork and exec,
where a process with threads must not run any.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str], *, on_death: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command line that runs `command` so that it gets `on_death` when the calling process is gone.

    The process ID is the command's own. Linux only: elsewhere the command comes back as it is. The kernel
    watches the *thread* that starts the child, so start it from one that lives as long as the process does.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(on_death)), *command]


def _main(parent: int, on_death: int, command: list[str]) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, on_death, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
