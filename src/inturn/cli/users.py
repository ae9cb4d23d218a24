"""`inturn users`: all there is of one user, to be handed to them, or to be removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inturn.cli.exits import DONE, FAILED
from inturn.cli.lines import report_lines, write_lines
from inturn.cli.local import local_settings
from inturn.cli.output import agreed, errors, out, print_json, spinner
from inturn.cli.text import plain
from inturn.erasure import ErasureReport, erase_user
from inturn.people import export_user
from inturn.persistence.opening import open_store
from inturn.turns.connection import connect

if TYPE_CHECKING:
    from rich.console import Console

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
    with open_store(settings) as store, connect(settings) as redis:
        counts = write_lines(export_user(settings, store, redis, user_id), output)
    report_lines(counts, output, as_json=as_json, user_id=user_id)
    return DONE


def run_erase(user_id: str, patience: float, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Remove all there is of a user. Returns the exit code."""
    settings = local_settings()
    with open_store(settings) as store, connect(settings) as redis:
        if not dry_run and not yes:
            found = erase_user(settings, store, redis, user_id, dry_run=True)
            _print(found, errors())
            if not agreed(f"Remove all there is of {user_id!r} for good?", yes=yes):
                return FAILED
        with spinner("looking") as tell:
            report = erase_user(
                settings,
                store,
                redis,
                user_id,
                dry_run=dry_run,
                patience=patience,
                on_progress=lambda place, count: tell(f"{count} {place}"),
            )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _print(report, out())
    return DONE if report.finished else FAILED


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
