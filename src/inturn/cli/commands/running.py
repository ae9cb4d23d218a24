"""`inturn dev`, `demo`, `replay` and `bench`: the system at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inturn.cli.commands.options import Json
from inturn.cli.layout import Command

PANEL = "Run it and try it"


def dev(
    port: Annotated[int, typer.Option(help="Where the web application listens, on 127.0.0.1.")] = 8000,
    data_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Where Valkey and SQLite keep their data.")
    ] = Path(".inturn/dev"),
    concurrency: Annotated[
        int, typer.Option(metavar="N", min=1, help="Turns the worker runs side by side.")
    ] = 16,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each line of a process as a JSON object.")
    ] = False,
) -> int:
    """Run everything in this terminal: Valkey, SQLite, workers, beat and the web application.

    REDIS_URL and DATABASE_URL name servers to use instead of the embedded ones. Ctrl-C stops it: the turns
    in hand are finished first.
    """
    from inturn.cli.dev import run_dev

    return run_dev(port, data_dir, concurrency, as_json=as_json)


def demo(
    file: Annotated[Path, typer.Option(metavar="FILE", help="The conversations to replay.")] = Path(
        "examples/conversations.jsonl"
    ),
    speed: Annotated[
        float, typer.Option(metavar="FACTOR", help="How many times faster than recorded.")
    ] = 4.0,
    as_json: Json = False,
) -> int:
    """Show the whole system: conversations through two workers, one of them killed half way, and the proof.

    Exit code 1: a turn was lost, doubled, out of order or overlapping.
    """
    from inturn.cli.demo import run_demo

    return run_demo(file, speed, as_json=as_json)


def replay(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON lines: session_id, text, optional user_id, turn_id, at.",
            metavar="FILE",
            show_default=False,
        ),
    ],
    speed: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR", help="1: as recorded, 10: ten times as fast; else as fast as possible."
        ),
    ] = None,
    producers: Annotated[int, typer.Option(metavar="N", min=1, help="Threads that offer lines.")] = 4,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds without a reply after which waiting ends.")
    ] = 60.0,
    as_json: Json = False,
) -> int:
    """Send recorded conversations through the queue and check that nothing was lost, doubled or reordered.

    Needs a running worker, and DATABASE_URL as the worker has it. Exit code 1: the check found a violation.
    """
    from inturn.cli.recorded import run_replay

    return run_replay(file, speed, producers, timeout, as_json=as_json)


def bench(
    turns: Annotated[int, typer.Option(metavar="N", min=1, help="Turns in all.")] = 200,
    sessions: Annotated[
        int, typer.Option(metavar="N", min=1, help="Sessions that they are spread over.")
    ] = 50,
    producers: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Threads that offer turns.")] = 4,
    text: Annotated[str, typer.Option(help="What the user says in each turn.")] = "Hello",
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds without a reply after which it ends.")
    ] = 60.0,
    clean: Annotated[
        bool, typer.Option("--clean", help="Only remove what benches that were killed have left.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Put a load on the deployment that the environment names, and print what it bore.

    Each turn is one of the workers' agent: if that asks a language model, so does this, at its price. The
    sessions are new ones with names of their own, and are deleted at the end, also after Ctrl-C; no other
    session is touched. Needs running workers, and DATABASE_URL as they have it.

    Exit code 1: a turn failed, or the history checker found a violation; 3: no worker answered.
    """
    from inturn.cli.bench import run_bench, run_clean

    if clean:
        return run_clean(as_json=as_json)
    return run_bench(turns, sessions, producers, text, timeout, as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add them to the command."""
    app.command("dev", cls=Command, epilog="Example: inturn dev --port 8000", rich_help_panel=PANEL)(dev)
    app.command("demo", cls=Command, epilog="Example: inturn demo --speed 8", rich_help_panel=PANEL)(demo)
    epilog = "Example: inturn replay conversations.jsonl --speed 10"
    app.command("replay", cls=Command, epilog=epilog, rich_help_panel=PANEL)(replay)
    epilog = "Example: inturn bench --turns 2000 --sessions 200"
    app.command("bench", cls=Command, epilog=epilog, rich_help_panel=PANEL)(bench)
