"""`inturn chat` and `inturn respond`: messages from this terminal, through the queue."""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape

from inturn.cli.local import local_settings
from inturn.client import Client
from inturn.contract import Response
from inturn.errors import InturnError, InvalidInputError, TurnError, TurnTimeoutError
from inturn.ids import check_id, create_session_id


def run_chat(session_id: str | None, timeout: float) -> int:
    """Read lines and print replies until the end of input. Returns the exit code."""
    console = Console(highlight=False)
    session_id = create_session_id() if session_id is None else check_id(session_id)
    with Client(local_settings()) as client:
        client.ping()
        console.print(f"[dim]session {escape(session_id)}; an empty line or Ctrl-D ends[/]")
        while True:
            try:
                text = console.input("[bold cyan]you>[/] ").strip()
            except (EOFError, KeyboardInterrupt):
                console.print()
                return 0
            if not text:
                return 0
            try:
                handle = client.respond(session_id, text)
                waiting = f"queued behind {handle.ahead}" if handle.ahead else "thinking"
                with console.status(f"[dim]{waiting}[/]"):
                    reply = handle.get(timeout)
            except TurnTimeoutError:
                console.print("[yellow]no reply yet; is a worker running? (inturn dev)[/]")
            except (TurnError, InvalidInputError) as error:
                console.print(f"[red]{escape(str(error))}[/]")
            else:
                _print_reply(console, reply)


def run_respond(session_id: str, text: str, turn_id: str | None, timeout: float, *, as_json: bool) -> int:
    """Enqueue one message and print the reply. Returns the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    with Client(local_settings()) as client:
        handle = client.respond(session_id, text, turn_id=turn_id)
        answer = {"session_id": session_id, "turn_id": handle.turn_id, "accepted": handle.accepted}
        if timeout <= 0:
            if as_json:
                console.print_json(json.dumps(answer))
            else:
                console.print(f"accepted as {handle.turn_id}, behind {handle.ahead}", markup=False)
            return 0
        try:
            reply = handle.get(timeout)
        except InturnError as error:
            code = 3 if isinstance(error, TurnTimeoutError) else 1
            if as_json:
                console.print_json(
                    json.dumps({**answer, "error": type(error).__name__, "detail": str(error)})
                )
            else:
                errors.print(f"inturn: {error}", markup=False, style="red")
            return code
    if as_json:
        console.print_json(reply.model_dump_json())
    else:
        console.print(reply.message, markup=False)
    return 0


def _print_reply(console: Console, reply: Response) -> None:
    console.print("[bold green]bot>[/] ", end="")
    console.print(reply.message, markup=False)
    facts = [f"{key}={value}" for key, value in reply.data.items()]
    if reply.route:
        facts.insert(0, f"route {reply.route}" + (" complete" if reply.is_route_complete else ""))
    if facts:
        console.print("     " + ", ".join(facts), style="dim", markup=False)
