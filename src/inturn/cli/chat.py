"""`inturn chat` and `inturn respond`: messages from this terminal, through the queue."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress

from rich.console import Console

from inturn.cli.exits import DONE, code_of
from inturn.cli.local import local_settings
from inturn.cli.output import fail, out, print_json
from inturn.cli.text import plain
from inturn.client import Client, TurnHandle
from inturn.contract import Piece, Response
from inturn.errors import InturnError, InvalidInputError, MailboxError, TurnError, TurnTimeoutError
from inturn.ids import check_id, create_session_id
from inturn.values import printable


def run_chat(session_id: str | None, timeout: float, *, as_json: bool) -> int:
    """Read lines and print replies until the end of input. Returns the exit code."""
    session_id = create_session_id() if session_id is None else check_id(session_id)
    with Client(local_settings()) as client:
        client.ping()
        if as_json:
            return _exchange(client, session_id, timeout)
        console = out()
        hint = "an empty line or Ctrl-D ends, Ctrl-C stops a reply"
        console.print(f"[dim]session {plain(session_id)}; {hint}[/]")
        while True:
            try:
                text = console.input("[bold cyan]you>[/] ").strip()
            except (EOFError, KeyboardInterrupt):
                console.print()
                return DONE
            if not text:
                return DONE
            try:
                handle = client.respond(session_id, text, stream=True)
                _talk(console, handle, timeout)
            except TurnTimeoutError:
                console.print("[yellow]no reply yet; is a worker running? (inturn dev)[/]")
            except (TurnError, MailboxError, InvalidInputError) as error:
                console.print(plain(error), style="red")


def run_respond(
    session_id: str, text: str, turn_id: str | None, timeout: float, *, as_json: bool, stream: bool
) -> int:
    """Enqueue one message and print the reply, with `stream` as it comes. Returns the exit code."""
    console = out()
    with Client(local_settings()) as client:
        handle = client.respond(session_id, text, turn_id=turn_id, stream=stream)
        answer = {"session_id": session_id, "turn_id": handle.turn_id, "accepted": handle.accepted}
        if timeout <= 0:
            if as_json:
                print_json(answer)
            else:
                console.print(plain(f"accepted as {handle.turn_id}, behind {handle.ahead}"))
            return DONE
        printed = _Printed(console)
        try:
            if stream and not as_json:
                printed.add(handle.stream(timeout=timeout))
            reply = handle.get(timeout)
        except InturnError as error:
            printed.end()
            if as_json:
                print_json(answer | _told(error))
            else:
                fail(error)
            return code_of(error)
    if as_json:
        print_json(reply.model_dump(mode="json"))
    elif stream:
        printed.end()
    else:
        console.print(plain(reply.message.expandtabs(), lines=True))
    return DONE


def _exchange(client: Client, session_id: str, timeout: float) -> int:
    """A line of input, a line of output; one that fails ends nothing."""
    code = DONE
    for line in sys.stdin:
        if not (text := line.strip()):
            break
        try:
            told = client.respond(session_id, text).get(timeout).model_dump(mode="json")
            code = DONE
        except (TurnError, MailboxError, InvalidInputError) as error:
            told, code = {"session_id": session_id} | _told(error), code_of(error)
        print_json(told)
        sys.stdout.flush()
    return code


def _told(error: InturnError) -> dict[str, str]:
    return {"error": type(error).__name__, "detail": str(error)}


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
            self._console.out(printable(piece.text.expandtabs(), lines=True), end="", highlight=False)

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
        console.print("     " + plain(", ".join(facts)), style="dim")
