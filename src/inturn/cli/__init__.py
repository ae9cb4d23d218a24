"""The `inturn` command: its groups, and how it is run. The commands themselves are in `commands`."""

from __future__ import annotations

import getpass
import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from inturn.audit import set_actor
from inturn.cli.commands import (
    audit,
    db,
    deliveries,
    keys,
    looking,
    retention,
    running,
    sessions,
    talking,
    turns,
    users,
)
from inturn.cli.program import Program

KEEPING = "Keep it, protect it, remove it"

app = typer.Typer(
    name="inturn",
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog="Example: inturn dev. Exit codes, and all commands on one page: docs/cli.md")
def inturn(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda wanted: _version(wanted), is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Run the turns of chat agents on Celery: one at a time per session, in order, none lost."""


running.register(app)
talking.register(app)
looking.register(app)
for group, name, panel, text in (
    (sessions.app, "sessions", looking.PANEL, "Conversations: find one, look at it, end it, delete it."),
    (turns.app, "turns", looking.PANEL, "Turns that wait or run, and turns that failed."),
    (deliveries.app, "deliveries", looking.PANEL, "Replies on their way out, and those that did not arrive."),
    (users.app, "users", KEEPING, "All there is of one user: hand it out, or erase it."),
    (retention.app, "retention", KEEPING, "How old sessions go: the last runs, and one more."),
    (keys.app, "keys", KEEPING, "The keys by which the store is encrypted."),
    (audit.app, "audit", KEEPING, "The audit log: who read, changed, exported or erased what."),
    (db.app, "db", KEEPING, "The schema of the database that DATABASE_URL names."),
):
    app.add_typer(group, name=name, help=text, rich_help_panel=panel)


def main() -> None:
    """Run the command and end the process."""
    set_actor(f"cli:{_operator()}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character ends nothing
    app(prog_name="inturn")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("inturn"))
        raise typer.Exit


def _operator() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # nobody has a name here, as in a container
        return str(os.getuid())
