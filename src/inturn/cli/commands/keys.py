"""`inturn keys`: the keys of the encrypted store."""

from __future__ import annotations

from typing import Annotated

import typer

from inturn.cli.commands.options import Json
from inturn.cli.layout import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True)


@app.command("new", cls=Command, epilog="Example: inturn keys new 2027-01")
def new(
    key_id: Annotated[
        str | None, typer.Argument(help="The key's ID; today's date without it.", metavar="ID")
    ] = None,
    as_json: Json = False,
) -> int:
    """Print a new key, as INTURN_ENCRYPTION_KEYS takes it. It is kept nowhere: keep it safe."""
    from inturn.cli.keys import run_new

    return run_new(key_id, as_json=as_json)


@app.command("rotate", cls=Command, epilog="Example: inturn keys rotate")
def rotate(as_json: Json = False) -> int:
    """Seal everything in the store with the first key of INTURN_ENCRYPTION_KEYS, also what is not encrypted.

    May be stopped and repeated at any time, and turns may run meanwhile. Exit code 1: something could not be
    opened.
    """
    from inturn.cli.keys import run_rotate

    return run_rotate(as_json=as_json)


@app.command("status", cls=Command, epilog="Example: inturn keys status --json")
def status(as_json: Json = False) -> int:
    """Count what each key has sealed, and say which may be removed. It reads all that is stored.

    Exit code 1: a key is missing that something was sealed with.
    """
    from inturn.cli.keys import run_status

    return run_status(as_json=as_json)
