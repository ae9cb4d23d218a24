"""`inturn replay`: recorded conversations through the queue that runs, with progress and a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from inturn.cli.conversations import read_conversations
from inturn.cli.local import local_settings
from inturn.cli.replay import Progress as State
from inturn.cli.replay import replay
from inturn.cli.report import print_figures, print_verdict
from inturn.client import Client
from inturn.persistence.opening import open_store


def run_replay(file: Path, speed: float | None, producers: int, timeout: float, *, as_json: bool) -> int:
    """Replay a file and print the report. Returns the exit code."""
    lines = read_conversations(file)
    settings = local_settings()
    console = Console(highlight=False)
    with (
        Client(settings) as client,
        open_store(settings) as adapter,
        progress_bar(Console(stderr=True)) as show,
    ):
        client.ping()
        report = replay(
            client, adapter, lines, speed=speed, producers=producers, timeout=timeout, on_progress=show
        )
    if as_json:
        console.print_json(json.dumps({**asdict(report), "ok": report.ok}, default=str))
    else:
        print_figures(console, report)
        print_verdict(console, report)
    return 0 if report.ok else 1


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[State], None]]:
    """Show a bar of answered turns while the block runs; it gives the function to call with each change."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("turns answered, {task.fields[offered]} lines offered"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task("replaying", total=None, offered=0)

        def show(state: State) -> None:
            progress.update(
                task,
                # The number of turns is known once every line is offered: some lines are repeats.
                total=state.turns if state.offered == state.lines else max(state.lines, state.turns),
                completed=state.answered,
                offered=state.offered,
            )

        yield show
