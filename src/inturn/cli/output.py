"""Output: results on standard output, for people or as JSON lines; all else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from inturn.cli.text import plain

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 10_000
"""The width of what is no terminal: there a row of a table is one line, for grep and its like."""

Watch = Callable[[int, int | None], None]
"""Called with how many are done, and of how many; None: that is not known."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process with 1, which has another meaning here


def out() -> Console:
    """Standard output. Lines stay whole, however narrow the terminal is."""
    wide = None if sys.stdout.isatty() else WIDE
    return _Console(highlight=False, soft_wrap=True, emoji=False, width=wide)


def errors() -> Console:
    """Standard error."""
    return _Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def print_json(value: Any) -> None:
    """Print one object on one line. No terminal obeys it: all but ASCII is escaped."""
    sys.stdout.write(f"{json.dumps(value)}\n")


def print_table(table: Table) -> None:
    """Print a table, folded to the terminal's width."""
    out().print(table, soft_wrap=False)


def fail(message: object) -> None:
    """Print an error, which is one line."""
    errors().print(f"inturn: {plain(' '.join(str(message).split()))}", style="red")


def note(message: object, style: str = "yellow") -> None:
    """Print what is no result."""
    errors().print(plain(message), style=style)


def agreed(question: str, *, yes: bool) -> bool:
    """Ask; True without a question if `yes`. Where nobody answers it was a no."""
    if yes:
        return True
    errors().print(f"{plain(question)} \\[y/N] ", end="")
    answer = sys.stdin.readline()
    if not answer:
        errors().print()
        fail("nobody answered, so nothing was done; --yes is the answer for scripts")
    return answer.strip().lower() in ("y", "yes")


@contextmanager
def bar(words: str, unit: str, total: int | None = None) -> Iterator[Watch]:
    """Show how far something is while the block runs, on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with _progress(*columns, TimeElapsedColumn()) as progress:
        task = progress.add_task(words, total=total)

        def watch(done: int, of: int | None = None) -> None:
            of = total if of is None else of
            progress.update(task, completed=done if of is None else min(done, of), total=of)

        yield watch


@contextmanager
def spinner(words: str) -> Iterator[Callable[[str], None]]:
    """Show that something goes on while the block runs, on a terminal only; gives what changes the words."""
    with _progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as progress:
        task = progress.add_task(words, total=None)
        yield lambda text: progress.update(task, description=plain(text))


def _progress(*columns: Any) -> Progress:
    console = errors()
    # What is printed meanwhile stays where it was sent: rich would send it to standard error as well.
    return Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    )
