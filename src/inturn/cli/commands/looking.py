"""`inturn doctor`: whether everything is as it should be."""

from __future__ import annotations

from typing import Annotated

import typer

from inturn.cli.commands.options import Json
from inturn.cli.layout import Command

PANEL = "Look at it and mend it"


def doctor(
    canary: Annotated[
        bool, typer.Option("--canary", help="Only see whether workers take messages; fit for a probe.")
    ] = False,
    worker: Annotated[
        str | None, typer.Option(help="With --canary: this one, as name@host, a host, or `self`.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --canary: seconds to wait for the answers.")
    ] = 5.0,
    as_json: Json = False,
) -> int:
    """Check settings, Redis, broker, workers, store, agent and clocks, and say how to mend what fails.

    It writes one session to the store, and deletes it. Exit code 1: a check failed; warnings do not count.
    """
    if canary:
        from inturn.cli.canary import run_canary

        return run_canary(worker, timeout, as_json=as_json)
    from inturn.cli.doctor import run_doctor

    return run_doctor(as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add it to the command."""
    app.command("doctor", cls=Command, epilog="Example: inturn doctor --json", rich_help_panel=PANEL)(doctor)
