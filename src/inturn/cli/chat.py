"""`inturn chat` and `inturn respond`: messages from this terminal, through the queue."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress

from rich.console import Console
from rich.markup import escape

from inturn.cli.local import local_settings
from inturn.client import Client, TurnHandle
from inturn.contract import Piece, Response
from inturn.errors import InturnError, InvalidInputError, TurnError, TurnTimeoutError
from inturn.ids import check_id, create_session_id


def run_chat(session_id: str | None, timeout: float) -> int:
    """Read lines and print replies until the end of input. Returns the exit code."""
    console = Console(highlight=False)
    session_id = create_session_id() if session_id is None else check_id(session_id)
    with Client(local_settings()) as client:
        client.ping()
        console.print(
            f"[dim]session {escape(session_id)}; an empty line or Ctrl-D ends, Ctrl-C stops a reply[/]"
        )
        while True:
            try:
                text = console.input("[bold cyan]you>[/] ").strip()
            except (EOFError, KeyboardInterrupt):
                console.print()
                return 0
            if not text:
                return 0
            try:
                handle = client.respond(session_id, text, stream=True)
                _talk(console, handle, timeout)
            except TurnTimeoutError:
                console.print("[yellow]no reply yet; is a worker running? (inturn dev)[/]")
            except (TurnError, InvalidInputError) as error:
                console.print(f"[red]{escape(str(error))}[/]")


def run_respond(
    session_id: str, text: str, turn_id: str | None, timeout: float, *, as_json: bool, stream: bool
) -> int:
    """Enqueue one message and print the reply, with `stream` as it comes. Returns the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    with Client(local_settings()) as client:
        handle = client.respond(session_id, text, turn_id=turn_id, stream=stream)
        answer = {"session_id": session_id, "turn_id": handle.turn_id, "accepted": handle.accepted}
        if timeout <= 0:
            if as_json:
                console.print_json(json.dumps(answer))
            else:
                console.print(f"accepted as {handle.turn_id}, behind {handle.ahead}", markup=False)
            return 0
        printed = _Printed(console)
        try:
            if stream and not as_json:
                printed.add(handle.stream(timeout=timeout))
            reply = handle.get(timeout)
        except InturnError as error:
            printed.end()
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
    elif stream:
        printed.end()
    else:
        console.print(reply.message, markup=False)
    return 0


class _Printed:
    """A reply as far as it is printed; `last` is the ID of the last piece."""

    def __init__(self, console: Console, before: str = "") -> None:
        self._console = console
        self._before = before
        self._begun = False
        self.last = ""

    def add(self, pieces: Iterable[Piece]) -> None:
        """Print the pieces as they come. What is void cannot be taken back: the reply is printed anew."""
        for piece in pieces:
            if piece.restarts:
                self._console.print("\n[dim](once more, from the beginning)[/]")
            if piece.restarts or not self._begun:
                self._console.print(self._before, end="")
            self._begun, self.last = True, piece.id
            self._console.out(piece.text, end="", highlight=False)

    def end(self) -> None:
        """Print the end of the line, if there is one."""
        if self._begun:
            self._console.print()
            self._begun = False


def _talk(console: Console, handle: TurnHandle, timeout: float) -> None:
    """Print the reply as it comes; Ctrl-C stops it."""
    printed = _Printed(console, "[bold green]bot>[/] ")
    waiting = console.status(f"[dim]{f'queued behind {handle.ahead}' if handle.ahead else 'thinking'}[/]")
    try:
        with waiting:
            pieces = handle.stream(timeout=timeout)
            first = next(pieces, None)
        if first is not None:
            printed.add([first])
            printed.add(pieces)
        reply = handle.get(timeout)
    except KeyboardInterrupt:
        handle.cancel()
        # It ends with its next piece; another Ctrl-C does not wait for that.
        with suppress(KeyboardInterrupt, TurnError):
            printed.add(handle.stream(after=printed.last, timeout=timeout))
        printed.end()
        console.print("     [yellow]stopped[/]")
    else:
        printed.end()
        _print_facts(console, reply)
    finally:
        printed.end()


def _print_facts(console: Console, reply: Response) -> None:
    facts = [f"{key}={value}" for key, value in reply.data.items()]
    if reply.route:
        facts.insert(0, f"route {reply.route}" + (" complete" if reply.is_route_complete else ""))
    if facts:
        console.print("     " + ", ".join(facts), style="dim", markup=False)
