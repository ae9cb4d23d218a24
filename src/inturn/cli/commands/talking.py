"""`inturn chat` and `inturn respond`: messages from this terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from inturn.cli.commands.options import Json, Session
from inturn.cli.commands.running import PANEL
from inturn.cli.layout import Command


def chat(
    session: Annotated[
        str | None, typer.Option(help="The session to go on with; a new one without it.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds to wait for a piece of a reply.")
    ] = 60.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each reply as a JSON object, on one line.")
    ] = False,
) -> int:
    """Talk to the agent in this terminal, through the queue. `inturn dev` must run somewhere, or a worker.

    Replies are printed as they are written; Ctrl-C stops one, an empty line or Ctrl-D ends the chat.
    """
    from inturn.cli.chat import run_chat

    return run_chat(session, timeout, as_json=as_json)


def respond(
    session: Session,
    text: Annotated[str, typer.Argument(help="What the user says.", metavar="TEXT", show_default=False)],
    turn_id: Annotated[str | None, typer.Option(help="Idempotency key; the same again adds nothing.")] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds to wait; 0 only enqueues.")
    ] = 60.0,
    stream: Annotated[bool, typer.Option("--stream", help="Print the reply as it is written.")] = False,
    as_json: Json = False,
) -> int:
    """Enqueue one message and print the reply.

    Exit code 1: the turn failed; 3: no reply in time.
    """
    from inturn.cli.chat import run_respond

    return run_respond(session, text, turn_id, timeout, as_json=as_json, stream=stream)


def register(app: typer.Typer) -> None:
    """Add them to the command."""
    app.command("chat", cls=Command, epilog="Example: inturn chat --session user-123", rich_help_panel=PANEL)(
        chat
    )
    epilog = 'Example: inturn respond user-123 "A table for four, please"'
    app.command("respond", cls=Command, epilog=epilog, rich_help_panel=PANEL)(respond)
