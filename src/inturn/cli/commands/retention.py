"""`inturn retention`: how old sessions go."""

from __future__ import annotations

from typing import Annotated

import typer

from inturn.cli.commands.options import DryRun, Json, JsonLines
from inturn.cli.layout import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True)


@app.command("list", cls=Command, epilog="Example: inturn retention list --last 5")
def list_(
    last: Annotated[int, typer.Option(metavar="N", min=1, help="So many runs.")] = 10,
    as_json: JsonLines = False,
) -> int:
    """List the last runs, the newest first: what was deleted, what was abandoned, what stayed.

    The last 100 runs are kept for 90 days.
    """
    from inturn.cli.retention import run_list

    return run_list(last, as_json=as_json)


@app.command("run", cls=Command, epilog="Example: inturn retention run --dry-run")
def run(
    dry_run: DryRun = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds to wait while nothing gets on.")
    ] = 90.0,
    as_json: Json = False,
) -> int:
    """Have a worker apply the retention policy now, and print what it did.

    May be stopped at any time: workers go on with the run. Exit code 3: no worker got on with it.
    """
    from inturn.cli.retention import run_now

    return run_now(timeout, dry_run=dry_run, as_json=as_json)
