"""`inturn replay`: recorded conversations through the queue that runs, with progress and a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inturn.cli.conversations import read_conversations
from inturn.cli.exits import DONE, FAILED
from inturn.cli.local import local_settings
from inturn.cli.output import bar, out, print_json
from inturn.cli.replay import Progress, ReplayReport, replay
from inturn.cli.report import print_figures, print_verdict
from inturn.client import Client
from inturn.persistence.opening import open_store


def run_replay(file: Path, speed: float | None, producers: int, timeout: float, *, as_json: bool) -> int:
    """Replay a file and print the report. Returns the exit code."""
    lines = read_conversations(file)
    settings = local_settings()
    with Client(settings) as client, open_store(settings) as adapter, replay_bar("replaying") as show:
        client.ping()
        report = replay(
            client, adapter, lines, speed=speed, producers=producers, timeout=timeout, on_progress=show
        )
    if as_json:
        print_json(as_object(report))
    else:
        print_figures(out(), report)
        print_verdict(out(), report)
    return DONE if report.ok else FAILED


def as_object(report: ReplayReport) -> dict[str, Any]:
    """A report as JSON has it; seconds are seconds."""
    told = asdict(report)
    for name in ("acceptance", "latency"):
        latency = getattr(report, name)
        told[name] = None if latency is None else latency._asdict()
    told["refused"] = [refusal._asdict() for refusal in report.refused]
    return told | {"ok": report.ok}


@contextmanager
def replay_bar(words: str) -> Iterator[Callable[[Progress], None]]:
    """Show a bar of answered turns while the block runs; it gives the function to call with each change."""
    with bar(words, "turns answered") as watch:

        def show(state: Progress) -> None:
            # The number of turns is known once every line is offered: some lines are repeats.
            offered = state.offered == state.lines
            watch(state.answered, state.turns if offered else max(state.lines, state.turns))

        yield show
