"""`inturn users`: all there is of one user, to be handed to them, or to be removed."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from inturn.cli.local import local_settings
from inturn.cli.text import plain
from inturn.erasure import ErasureReport, erase_user
from inturn.people import export_user
from inturn.persistence.opening import open_store
from inturn.turns.connection import connect

_PLACES = {
    "sessions": "sessions deleted",
    "messages": "messages in them",
    "turns_cancelled": "turns that waited or ran",
    "cut_off": "of them cut off as they ran",
    "broker_messages": "messages of the broker",
    "deliveries": "replies on their way out",
    "dead_letters": "dead letters",
    "results": "results of turns",
    "streams": "texts of streamed replies",
    "claims": "claims of session IDs",
    "tickets": "tickets of the web API",
    "rate_limits": "rate limits",
    "messages_blanked": "messages blanked in sessions of others",
    "not_blanked": "that this store cannot blank",
}


def run_export(user_id: str, output: Path | None, *, as_json: bool) -> int:
    """Write all there is of a user, one JSON object a line. Returns the exit code."""
    settings = local_settings()
    lines: dict[str, int] = {}
    with ExitStack() as stack:
        store = stack.enter_context(open_store(settings))
        redis = stack.enter_context(connect(settings))
        progress = stack.enter_context(_progress(hidden=as_json or not sys.stderr.isatty()))
        task = progress.add_task("lines", total=None)
        if output is None:
            out = sys.stdout
        else:
            # It is about to hold what one person has said: nobody else may read it.
            handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            out = stack.enter_context(open(handle, "w", encoding="utf-8"))
        for line in export_user(settings, store, redis, user_id):
            out.write(json.dumps(line, ensure_ascii=output is None) + "\n")
            lines[line["type"]] = lines.get(line["type"], 0) + 1
            progress.update(task, completed=sum(lines.values()))
    if output is not None:
        report = Console(highlight=False, soft_wrap=True)
        if as_json:
            report.print_json(json.dumps({"user_id": user_id, "file": str(output), "lines": lines}))
        else:
            report.print(plain(f"{output}: {lines.get('session', 0)} sessions, {sum(lines.values())} lines"))
    return 0


def run_erase(user_id: str, patience: float, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Remove all there is of a user. Returns the exit code."""
    settings = local_settings()
    with open_store(settings) as store, connect(settings) as redis:
        if not dry_run and not yes:
            found = erase_user(settings, store, redis, user_id, dry_run=True)
            _print(found, Console(stderr=True, highlight=False, soft_wrap=True))
            question = f"Remove all there is of {user_id!r} for good?"
            if not typer.confirm(plain(question), err=True):
                return 1
        with _progress(hidden=as_json or not sys.stderr.isatty()) as progress:
            task = progress.add_task("looking", total=None)
            report = erase_user(
                settings,
                store,
                redis,
                user_id,
                dry_run=dry_run,
                patience=patience,
                on_progress=lambda place, count: progress.update(task, description=place, completed=count),
            )
    console = Console(highlight=False, soft_wrap=True)
    if as_json:
        console.print_json(report.model_dump_json())
    else:
        _print(report, console)
    return int(not report.finished)


def _progress(*, hidden: bool) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} {task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden)


def _print(report: ErasureReport, console: Console) -> None:
    counts = report.model_dump()
    found = {words: counts[place] for place, words in _PLACES.items() if counts[place]}
    for words, count in found.items():
        console.print(f"{count:>8}  {words}")
    for session_id in report.elsewhere:
        console.print(
            plain(f"spoke in {session_id}, which is not theirs: see what the agent has collected there")
        )
    if not found:
        console.print("there is nothing of this user")
    elif report.dry_run:
        console.print("nothing was removed: this is what there is", style="yellow")
    elif report.finished:
        console.print("erased", style="green")
    if not report.finished:
        console.print("they go on writing; call it again, once they have stopped", style="red")
