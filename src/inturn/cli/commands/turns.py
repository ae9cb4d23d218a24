"""`inturn turns`: those that wait, and those that failed."""

from __future__ import annotations

from typing import Annotated

import typer

from inturn.cli.commands.options import ItsSession, Json, JsonLines, OfSession, Turn, Yes
from inturn.cli.layout import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True)

SomeTurn = Annotated[str | None, typer.Argument(help="The turn's ID.", metavar="TURN", show_default=False)]
OfError = Annotated[str | None, typer.Option("--error", help="Those with this error, as in ProviderError.")]
OlderThan = Annotated[
    str | None, typer.Option("--older-than", metavar="AGE", help="Those that failed before: 90s, 2h, 7d.")
]
NewerThan = Annotated[
    str | None, typer.Option("--newer-than", metavar="AGE", help="Those that failed since then.")
]
OfAll = Annotated[bool, typer.Option("--all", help="All that failed.")]


@app.command("list", cls=Command, epilog="Example: inturn turns list --session user-123")
def list_(
    session: OfSession = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="So many at most.")] = 200,
    as_json: JsonLines = False,
) -> int:
    """List the turns that wait or run, in their order in each session. Nothing that was said is shown."""
    from inturn.cli.waiting import run_list

    return run_list(session, limit, as_json=as_json)


@app.command("show", cls=Command, epilog="Example: inturn turns show user-123:event-1")
def show(
    turn: Turn,
    session: ItsSession = None,
    text: Annotated[bool, typer.Option("--text", help="Of one that failed: what was said, too.")] = False,
    as_json: Json = False,
) -> int:
    """Show where one turn stands, and if it failed and was given up, why.

    Exit code 1: nobody knows it, or only its session does, whose history is what tells.
    """
    from inturn.cli.turns import run_show

    return run_show(turn, session, text=text, as_json=as_json)


@app.command("cancel", cls=Command, epilog="Example: inturn turns cancel user-123:event-1")
def cancel(
    turn: SomeTurn = None,
    session: Annotated[
        str | None, typer.Option(help="All of this session; with TURN: its session, where its ID names none.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Drop a turn that waits, or stop one that runs: what it has said until then is its reply.

    One turn, or all that wait or run in a session, the last one first. Exit code 1: there was none, or the
    answer was no.
    """
    from inturn.cli.waiting import run_cancel

    return run_cancel(turn, session, yes=yes, as_json=as_json)


@app.command("dead", cls=Command, epilog="Example: inturn turns dead --error ProviderError --newer-than 2h")
def dead(
    session: OfSession = None,
    error: OfError = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    as_json: JsonLines = False,
) -> int:
    """List the turns that failed and were given up, the oldest first. Nothing that was said is shown."""
    from inturn.cli.turns import Which, run_dead

    return run_dead(Which(session, error, older_than, newer_than), as_json=as_json)


@app.command("retry", cls=Command, epilog="Example: inturn turns retry --error ProviderError --newer-than 2h")
def retry(
    turn: SomeTurn = None,
    session: OfSession = None,
    error: OfError = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: OfAll = False,
    as_json: Json = False,
) -> int:
    """Run turns that failed again, each as a new turn behind those of its session that wait.

    One turn, or all that the options name. May be stopped and repeated at any time: nothing runs twice. Exit
    code 1: there is no such turn, or some stay for now because too many turns wait.
    """
    from inturn.cli.turns import Which, run_retry

    which = Which(session, error, older_than, newer_than, everything=everything)
    return run_retry(turn, which, as_json=as_json)


@app.command("drop", cls=Command, epilog="Example: inturn turns drop --older-than 7d --yes")
def drop(
    turn: SomeTurn = None,
    session: OfSession = None,
    error: OfError = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: OfAll = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Forget turns that failed: they cannot be run again. The history of their sessions stays as it is.

    One turn, or all that the options name. Exit code 1: there is no such turn, or the answer was no.
    """
    from inturn.cli.turns import Which, run_drop

    which = Which(session, error, older_than, newer_than, everything=everything)
    return run_drop(turn, which, yes=yes, as_json=as_json)
