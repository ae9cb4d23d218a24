"""`inturn audit`: who did what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inturn.cli.commands.options import Json, JsonLines
from inturn.cli.layout import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True)

Directory = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="The log's directory; default: INTURN_AUDIT_LOG.")
]


@app.command(
    "verify", cls=Command, epilog="Example: inturn audit verify --anchor heads.json --json > heads.new.json"
)
def verify(
    directory: Directory = None,
    anchor: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What an earlier `verify --json` has printed: it must still be found."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Check that no record was changed, removed, added or moved, and print the head of each chain.

    That the newest records were cut off can be told only against heads which were kept elsewhere: --anchor.
    Exit code 1: the log is not as it was written, and the first broken place of each chain is named.
    """
    from inturn.cli.audit import run_verify

    return run_verify(directory, anchor, as_json=as_json)


@app.command("show", cls=Command, epilog="Example: inturn audit show --user ann --since 7d")
def show(
    session: Annotated[str | None, typer.Option(help="Records of this session.")] = None,
    user: Annotated[str | None, typer.Option(help="Of this user's sessions, and what they did.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="AGE", help="Not older than this: 90s, 15min, 2h, 7d.")
    ] = None,
    directory: Directory = None,
    as_json: JsonLines = False,
) -> int:
    """Show who did what, in the order in which it was done. It does not verify the log."""
    from inturn.cli.audit import run_show

    return run_show(session, user, since, directory, as_json=as_json)
