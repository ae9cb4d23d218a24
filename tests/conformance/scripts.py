"""run_script: other Python processes, for what only another process can show."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import dedent


@contextmanager
def started_script(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `script` beside the test, with our import path and `arguments` in `sys.argv[1:]`; then end it."""
    path = f"import sys\nsys.path[:] = {sys.path!r}\n"
    with subprocess.Popen(
        [sys.executable, "-c", path + dedent(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def run_script(script: str, *arguments: str) -> str:
    """What `script` prints; it must end well."""
    with started_script(script, *arguments) as process:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    return said
