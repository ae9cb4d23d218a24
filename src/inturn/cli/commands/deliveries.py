"""`inturn deliveries`: replies on their way out."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from inturn.cli.commands.options import Json, JsonLines, OfSession, Session, Turn
from inturn.cli.layout import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True)


@app.command("list", cls=Command, epilog="Example: inturn deliveries list --state unknown")
def list_(
    session: OfSession = None,
    state: Annotated[
        Literal["waiting", "sending", "unknown", "failed", "doubtful"] | None,
        typer.Option(help="Those in this state."),
    ] = None,
    as_json: JsonLines = False,
) -> int:
    """List the replies that wait to go out on their channels, and those that did not simply arrive.

    unknown: nobody can tell whether it arrived; failed: it did not; doubtful: it may have arrived twice. Of
    these the last 1,000 of 30 days are shown.
    """
    from inturn.cli.deliveries import run_list

    return run_list(session, state, as_json=as_json)


@app.command("retry", cls=Command, epilog="Example: inturn deliveries retry slack:T1:C1 Ev0123456789")
def retry(session: Session, turn: Turn, as_json: Json = False) -> int:
    """Send a reply again that ended as unknown or failed, from the part that it ended with.

    If it was unknown, that part may have arrived before: it is marked as doubtful.
    """
    from inturn.cli.deliveries import run_retry

    return run_retry(session, turn, as_json=as_json)
