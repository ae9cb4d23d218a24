"""`inturn users`: all there is of one user."""

from __future__ import annotations

from typing import Annotated

import typer

from inturn.cli.commands.options import DryRun, Json, Output, User, Yes
from inturn.cli.layout import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True)


@app.command("export", cls=Command, epilog="Example: inturn users export ann --output ann.jsonl")
def export(user: User, output: Output = None, as_json: Json = False) -> int:
    """Write all there is of a user, one JSON object a line: sessions, messages, turns that wait or failed.

    With --json and a file the report is a JSON object too.
    """
    from inturn.cli.users import run_export

    return run_export(user, output, as_json=as_json)


@app.command("erase", cls=Command, epilog="Example: inturn users erase ann --dry-run")
def erase(
    user: User,
    dry_run: DryRun = False,
    yes: Yes = False,
    patience: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds that a turn which runs is given to end.")
    ] = 30.0,
    as_json: Json = False,
) -> int:
    """Remove all there is of a user, from store, archive, Redis, results and broker. It cannot be undone.

    May be stopped and repeated at any time. Exit code 1: the answer was no, or they went on writing.
    """
    from inturn.cli.users import run_erase

    return run_erase(user, patience, dry_run=dry_run, yes=yes, as_json=as_json)
