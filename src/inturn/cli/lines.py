"""Lines: what is exported, one JSON object a line, to standard output or to a private file."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from inturn.cli.output import out, print_json, spinner
from inturn.cli.text import plain


def write_lines(lines: Iterable[dict[str, Any]], output: Path | None) -> Counter[str]:
    """Write them; returns how many there were of each `type`.

    A file is there only once it is whole.
    """
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        file = sys.stdout if output is None else stack.enter_context(_private(output))
        # On a terminal the lines themselves show that it goes on.
        shows = output is not None or not sys.stdout.isatty()
        tell = stack.enter_context(spinner("reading")) if shows else None
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=output is None) + "\n")
            counts[line["type"]] += 1
            if tell is not None:
                tell(f"{counts.total():,} lines")
    return counts


def report_lines(counts: Counter[str], output: Path | None, *, as_json: bool, **facts: Any) -> None:
    """Say what was written, where it was a file."""
    if output is None:
        return
    if as_json:
        print_json({**facts, "file": str(output), "lines": counts})
    else:
        out().print(plain(f"{output}: {counts['session']} sessions, {counts.total()} lines"))


@contextmanager
def _private(path: Path) -> Iterator[TextIO]:
    if path.exists() and not path.is_file():  # such as /dev/stdout
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        # It is about to hold what somebody has said.
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
