"""`inturn db`: the schema of the database."""

from __future__ import annotations

import typer

from inturn.cli.commands.options import Json
from inturn.cli.layout import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True)


@app.command(
    "upgrade", cls=Command, epilog="Example: DATABASE_URL=postgresql://localhost/chat inturn db upgrade"
)
def upgrade(as_json: Json = False) -> int:
    """Create the tables, or change older ones, also such as other programs have made; nothing is lost.

    Safe to repeat, and to run by several processes at once. docs/persistence-sqlalchemy.md tells more.
    """
    from inturn.cli.db import run_upgrade

    return run_upgrade(as_json=as_json)


@app.command("current", cls=Command, epilog="Example: inturn db current --json")
def current(as_json: Json = False) -> int:
    """Say which revision the schema is at, and which is the newest."""
    from inturn.cli.db import run_current

    return run_current(as_json=as_json)


@app.command("check", cls=Command, epilog="Example: inturn db check || inturn db upgrade")
def check(as_json: Json = False) -> int:
    """Say what the schema lacks: tables, columns, indexes.

    Exit code 1: something is missing.
    """
    from inturn.cli.db import run_check

    return run_check(as_json=as_json)
