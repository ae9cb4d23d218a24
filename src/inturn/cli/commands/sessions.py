"""`inturn sessions`: conversations, one by one."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from inturn.cli.commands.options import DryRun, Json, JsonLines, Output, Session, Sessions, Yes
from inturn.cli.layout import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True)

Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="Seconds to wait until it is done; 0 only asks for it.")
]


@app.command("list", cls=Command, epilog="Example: inturn sessions list --status active --older-than 30d")
def list_(
    user: Annotated[str | None, typer.Option(help="Those of this user.")] = None,
    status: Annotated[
        Literal["active", "completed", "abandoned"] | None, typer.Option(help="Those with this status.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Those of the agent with this name.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Last changed before: 90s, 15min, 2h, 7d.")
    ] = None,
    newer_than: Annotated[str | None, typer.Option(metavar="AGE", help="Changed since then.")] = None,
    order: Annotated[Literal["newest", "oldest"], typer.Option(help="Which come first.")] = "newest",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Sessions on one page.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before has ended.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All pages.")] = False,
    as_json: JsonLines = False,
) -> int:
    """List sessions by the time of their last change. Nothing that was said is shown.

    One that cannot be read, for a key that is missing, is listed with the reason. Where there are more, the
    last line on standard error says how to go on.
    """
    from inturn.cli.sessions import Wanted, run_list

    wanted = Wanted(user, status, agent, older_than, newer_than, order)
    return run_list(wanted, limit, cursor, everything=everything, as_json=as_json)


@app.command("show", cls=Command, epilog="Example: inturn sessions show user-123")
def show(session: Session, as_json: Json = False) -> int:
    """Show where a session stands: state, route, data, turns that wait, who drives it, what failed.

    Exit code 1: there is no such session, and no turn of it waits.
    """
    from inturn.cli.sessions import run_show

    return run_show(session, as_json=as_json)


@app.command("messages", cls=Command, epilog="Example: inturn sessions messages user-123 --last 10")
def messages(
    session: Session,
    last: Annotated[int, typer.Option(metavar="N", min=1, help="So many, the newest.")] = 50,
    before: Annotated[int | None, typer.Option(metavar="N", min=1, help="Those before this number.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: JsonLines = False,
) -> int:
    """Print what was said, the oldest first.

    Exit code 1: there is no such session.
    """
    from inturn.cli.sessions import run_messages

    return run_messages(session, last, before, everything=everything, as_json=as_json)


@app.command("complete", cls=Command, epilog="Example: inturn sessions complete user-123")
def complete(sessions: Sessions, timeout: Timeout = 60.0, as_json: JsonLines = False) -> int:
    """Set the status `completed`, as a turn behind those that wait.

    Exit code 1: there is no such session, or the change failed; 3: it was not done in time.
    """
    from inturn.cli.session_changes import run_status

    return run_status(sessions, "completed", timeout, as_json=as_json)


@app.command("abandon", cls=Command, epilog="Example: inturn sessions abandon user-123")
def abandon(sessions: Sessions, timeout: Timeout = 60.0, as_json: JsonLines = False) -> int:
    """Set the status `abandoned`, as a turn behind those that wait.

    Exit code 1: there is no such session, or the change failed; 3: it was not done in time.
    """
    from inturn.cli.session_changes import run_status

    return run_status(sessions, "abandoned", timeout, as_json=as_json)


@app.command("delete", cls=Command, epilog="Example: inturn sessions delete user-123 --dry-run")
def delete(sessions: Sessions, dry_run: DryRun = False, yes: Yes = False, as_json: JsonLines = False) -> int:
    """Delete sessions with all that was said in them. It cannot be undone.

    A session with a turn or a reply on its way is left alone: `inturn turns cancel --session` stops them. Of
    a user `inturn users erase` removes more. Exit code 1: one was not deleted, or the answer was no.
    """
    from inturn.cli.session_changes import run_delete

    return run_delete(sessions, dry_run=dry_run, yes=yes, as_json=as_json)


@app.command("export", cls=Command, epilog="Example: inturn sessions export user-123 --output user-123.jsonl")
def export(sessions: Sessions, output: Output = None, as_json: Json = False) -> int:
    """Write all there is of sessions, one JSON object a line: sessions, messages, turns that wait or failed.

    With --json and a file the report is a JSON object too. Exit code 1: there is no such session.
    """
    from inturn.cli.session_export import run_export

    return run_export(sessions, output, as_json=as_json)
