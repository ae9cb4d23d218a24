"""The `inturn` command."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from inturn.audit import set_actor
from inturn.errors import InturnError

app = typer.Typer(
    name="inturn",
    help="Run the turns of chat agents on Celery: one at a time per session, in order, none lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

db = typer.Typer(no_args_is_help=True)
app.add_typer(db, name="db", help="The schema of the database that DATABASE_URL names.")

deliveries = typer.Typer(invoke_without_command=True)
app.add_typer(deliveries, name="deliveries")

turns = typer.Typer(no_args_is_help=True)
app.add_typer(turns, name="turns", help="The turns that failed: look at them, run them again, drop them.")

audit = typer.Typer(no_args_is_help=True)
app.add_typer(audit, name="audit", help="The audit log: who read, changed, exported or erased what.")

users = typer.Typer(no_args_is_help=True)
app.add_typer(users, name="users", help="All there is of one user: hand it out, or erase it.")

keys = typer.Typer(no_args_is_help=True)
app.add_typer(keys, name="keys", help="The keys by which the store is encrypted.")

retention = typer.Typer(invoke_without_command=True)
app.add_typer(retention, name="retention")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.command("dev", epilog="Example: inturn dev --port 8000")
def dev_command(
    port: Annotated[int, typer.Option(help="Where the web application listens, on 127.0.0.1.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Where Valkey and SQLite keep their data.")] = Path(
        ".inturn/dev"
    ),
    concurrency: Annotated[int, typer.Option(help="Turns the worker runs side by side.")] = 16,
) -> None:
    """Run everything in this terminal: Valkey, SQLite, workers, beat and the web application.

    REDIS_URL and DATABASE_URL name servers to use instead of the embedded ones. Ctrl-C stops it: the turns
    in hand are finished first.
    """
    from inturn.cli.dev import run_dev

    raise typer.Exit(run_dev(port, data_dir, concurrency))


@app.command("chat", epilog="Example: inturn chat --session user-123")
def chat_command(
    session: Annotated[
        str | None, typer.Option(help="The session to go on with; a new one without it.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a piece of a reply.")] = 60.0,
) -> None:
    """Talk to the agent in this terminal, through the queue. `inturn dev` must run somewhere, or a worker.

    Replies are printed as they are written; Ctrl-C stops one.
    """
    from inturn.cli.chat import run_chat

    raise typer.Exit(run_chat(session, timeout))


@app.command("respond", epilog='Example: inturn respond user-123 "A table for four, please"')
def respond_command(
    session: Annotated[str, typer.Argument(help="The session's ID.", metavar="SESSION")],
    text: Annotated[str, typer.Argument(help="What the user says.", metavar="TEXT")],
    turn_id: Annotated[str | None, typer.Option(help="Idempotency key; the same again adds nothing.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait; 0 only enqueues.")] = 60.0,
    stream: Annotated[bool, typer.Option("--stream", help="Print the reply as it is written.")] = False,
    as_json: Json = False,
) -> None:
    """Enqueue one message and print the reply. Exit code 1: the turn failed; 3: no reply in time."""
    from inturn.cli.chat import run_respond

    raise typer.Exit(run_respond(session, text, turn_id, timeout, as_json=as_json, stream=stream))


@app.command("replay", epilog="Example: inturn replay conversations.jsonl --speed 10")
def replay_command(
    file: Annotated[
        Path, typer.Argument(help="JSON lines: session_id, text, optional user_id, turn_id, at.")
    ],
    speed: Annotated[
        float | None,
        typer.Option(help="1: as recorded, 10: ten times as fast; else as fast as possible."),
    ] = None,
    producers: Annotated[int, typer.Option(help="Threads that offer lines.")] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds without a reply after which waiting ends.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Send recorded conversations through the queue and check that nothing was lost, doubled or reordered.

    Needs a running worker, and DATABASE_URL as the worker has it. Exit code 1: the check found a violation.
    """
    from inturn.cli.recorded import run_replay

    raise typer.Exit(run_replay(file, speed, producers, timeout, as_json=as_json))


@app.command("doctor", epilog="Example: inturn doctor --json")
def doctor_command(
    canary: Annotated[
        bool, typer.Option("--canary", help="Only see whether workers take messages; fit for a probe.")
    ] = False,
    worker: Annotated[
        str | None, typer.Option(help="With --canary: this one, as name@host, a host, or `self`.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="With --canary: seconds to wait for the answers.")] = 5.0,
    as_json: Json = False,
) -> None:
    """Check settings, Redis, broker, workers, store, agent and clocks, and say how to mend what fails.

    It writes one session to the store, and deletes it. Exit code 1: a check failed; warnings do not count.
    """
    if canary:
        from inturn.cli.canary import run_canary

        raise typer.Exit(run_canary(worker, timeout, as_json=as_json))
    from inturn.cli.doctor import run_doctor

    raise typer.Exit(run_doctor(as_json=as_json))


@app.command("demo", epilog="Example: inturn demo --speed 8")
def demo_command(
    file: Annotated[Path, typer.Option(help="The conversations to replay.", exists=False)] = Path(
        "examples/conversations.jsonl"
    ),
    speed: Annotated[float, typer.Option(help="How many times faster than recorded.")] = 4.0,
) -> None:
    """Show the whole system: conversations through two workers, one of them killed half way, and the proof.

    Exit code 1: a turn was lost, doubled, out of order or overlapping.
    """
    from inturn.cli.demo import run_demo

    raise typer.Exit(run_demo(file, speed))


@deliveries.callback(epilog="Example: inturn deliveries --state unknown")
def deliveries_command(
    context: typer.Context,
    session: Annotated[str | None, typer.Option(help="Of this session only.")] = None,
    state: Annotated[
        Literal["waiting", "sending", "unknown", "failed", "doubtful"] | None,
        typer.Option(help="In this state only."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the replies that wait to go out on their channels, and those that did not simply arrive.

    unknown: nobody can tell whether it arrived; failed: it did not; doubtful: it may have arrived twice. Of
    these the last 1,000 of 30 days are shown.
    """
    if context.invoked_subcommand is None:
        from inturn.cli.deliveries import run_deliveries

        raise typer.Exit(run_deliveries(session, state, as_json=as_json))


@deliveries.command("retry", epilog="Example: inturn deliveries retry slack:T1:C1 Ev0123456789")
def deliveries_retry_command(
    session: Annotated[str, typer.Argument(help="The session's ID.", metavar="SESSION")],
    turn: Annotated[str, typer.Argument(help="The turn's ID.", metavar="TURN")],
) -> None:
    """Send a reply again that ended as unknown or failed, from the part that it ended with.

    If it was unknown, that part may have arrived before: it is marked as doubtful.
    """
    from inturn.cli.deliveries import run_retry

    raise typer.Exit(run_retry(session, turn))


TURN = typer.Argument(help="The turn's ID.", metavar="TURN", show_default=False)
OfSession = Annotated[str | None, typer.Option("--session", help="Those of this session.")]
OfError = Annotated[str | None, typer.Option("--error", help="Those with this error, as in ProviderError.")]
OlderThan = Annotated[str | None, typer.Option("--older-than", help="Those that failed before: 90s, 2h, 7d.")]
NewerThan = Annotated[str | None, typer.Option("--newer-than", help="Those that failed since then.")]
OfAll = Annotated[bool, typer.Option("--all", help="All that failed.")]


@turns.command("dead", epilog="Example: inturn turns dead --error ProviderError --newer-than 2h")
def turns_dead_command(
    session: OfSession = None,
    error: OfError = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    as_json: Json = False,
) -> None:
    """List the turns that failed and were given up, the oldest first. Nothing that was said is shown."""
    from inturn.cli.turns import Which, run_dead

    raise typer.Exit(run_dead(Which(session, error, older_than, newer_than), as_json=as_json))


@turns.command("show", epilog="Example: inturn turns show user-123:event-1")
def turns_show_command(
    turn: Annotated[str, TURN],
    session: Annotated[str | None, typer.Option(help="Its session, where its ID names none.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Show what was said, too.")] = False,
    as_json: Json = False,
) -> None:
    """Show one turn that failed, and why. Exit code 1: there is no such turn."""
    from inturn.cli.turns import run_show

    raise typer.Exit(run_show(turn, session, text=text, as_json=as_json))


@turns.command("retry", epilog="Example: inturn turns retry --error ProviderError --newer-than 2h")
def turns_retry_command(
    turn: Annotated[str | None, TURN] = None,
    session: OfSession = None,
    error: OfError = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: OfAll = False,
    as_json: Json = False,
) -> None:
    """Run turns that failed again, each as a new turn behind those of its session that wait.

    One turn, or all that the options name. May be stopped and repeated at any time: nothing runs twice. Exit
    code 1: there is no such turn, or some stay for now because too many turns wait; 130: it was stopped.
    """
    from inturn.cli.turns import Which, run_retry

    which = Which(session, error, older_than, newer_than, everything=everything)
    raise typer.Exit(run_retry(turn, which, as_json=as_json))


@turns.command("drop", epilog="Example: inturn turns drop --older-than 7d --yes")
def turns_drop_command(
    turn: Annotated[str | None, TURN] = None,
    session: OfSession = None,
    error: OfError = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: OfAll = False,
    yes: Annotated[bool, typer.Option("--yes", help="Drop many without a question.")] = False,
    as_json: Json = False,
) -> None:
    """Forget turns that failed: they cannot be run again. The history of their sessions stays as it is.

    One turn, or all that the options name. Exit code 1: there is no such turn, or the answer was no.
    """
    from inturn.cli.turns import Which, run_drop

    which = Which(session, error, older_than, newer_than, everything=everything)
    raise typer.Exit(run_drop(turn, which, yes=yes, as_json=as_json))


AuditDir = Annotated[
    Path | None, typer.Option("--dir", help="The log's directory; default: INTURN_AUDIT_LOG.")
]


@audit.command("verify", epilog="Example: inturn audit verify --anchor heads.json --json > heads.new.json")
def audit_verify_command(
    directory: AuditDir = None,
    anchor: Annotated[
        Path | None,
        typer.Option(help="What an earlier `verify --json` has printed: it must still be found."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check that no record was changed, removed, added or moved, and print the head of each chain.

    That the newest records were cut off can be told only against heads which were kept elsewhere: --anchor.
    Exit code 1: the log is not as it was written, and the first broken place of each chain is named.
    """
    from inturn.cli.audit import run_verify

    raise typer.Exit(run_verify(directory, anchor, as_json=as_json))


@audit.command("show", epilog="Example: inturn audit show --user ann --since 7d")
def audit_show_command(
    session: Annotated[str | None, typer.Option(help="Records of this session.")] = None,
    user: Annotated[str | None, typer.Option(help="Of this user's sessions, and what they did.")] = None,
    since: Annotated[str | None, typer.Option(help="Not older than this: 90s, 15min, 2h, 7d.")] = None,
    directory: AuditDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show who did what, in the order in which it was done. It does not verify the log."""
    from inturn.cli.audit import run_show

    raise typer.Exit(run_show(session, user, since, directory, as_json=as_json))


USER = typer.Argument(help="The user's ID.", metavar="USER", show_default=False)


@users.command("export", epilog="Example: inturn users export ann --output ann.jsonl")
def users_export_command(
    user: Annotated[str, USER],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file, for you alone; else standard output.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write all there is of a user, one JSON object a line: sessions, messages, turns that wait or failed.

    With --json and a file the report is a JSON object too.
    """
    from inturn.cli.users import run_export

    raise typer.Exit(run_export(user, output, as_json=as_json))


@users.command("erase", epilog="Example: inturn users erase ann --dry-run")
def users_erase_command(
    user: Annotated[str, USER],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Without a question.")] = False,
    patience: Annotated[float, typer.Option(help="Seconds that a turn which runs is given to end.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Remove all there is of a user, from store, archive, Redis, results and broker. It cannot be undone.

    May be stopped and repeated at any time. Exit code 1: the answer was no, or they went on writing.
    """
    from inturn.cli.users import run_erase

    raise typer.Exit(run_erase(user, patience, dry_run=dry_run, yes=yes, as_json=as_json))


@db.command("upgrade", epilog="Example: DATABASE_URL=postgresql://localhost/chat inturn db upgrade")
def db_upgrade_command(as_json: Json = False) -> None:
    """Create the tables, or change older ones, also such as other programs have made; nothing is lost.

    Safe to repeat, and to run by several processes at once. docs/persistence-sqlalchemy.md tells more.
    """
    from inturn.cli.db import run_upgrade

    raise typer.Exit(run_upgrade(as_json=as_json))


@db.command("current", epilog="Example: inturn db current --json")
def db_current_command(as_json: Json = False) -> None:
    """Say which revision the schema is at, and which is the newest."""
    from inturn.cli.db import run_current

    raise typer.Exit(run_current(as_json=as_json))


@db.command("check", epilog="Example: inturn db check || inturn db upgrade")
def db_check_command(as_json: Json = False) -> None:
    """Say what the schema lacks: tables, columns, indexes. Exit code 1: something is missing."""
    from inturn.cli.db import run_check

    raise typer.Exit(run_check(as_json=as_json))


@keys.command("new", epilog="Example: inturn keys new 2027-01")
def keys_new_command(
    key_id: Annotated[
        str | None, typer.Argument(help="The key's ID; today's date without it.", metavar="ID")
    ] = None,
) -> None:
    """Print a new key, as INTURN_ENCRYPTION_KEYS takes it. It is kept nowhere: keep it safe."""
    from inturn.cli.keys import run_new

    raise typer.Exit(run_new(key_id))


@keys.command("rotate", epilog="Example: inturn keys rotate")
def keys_rotate_command(as_json: Json = False) -> None:
    """Seal everything in the store with the first key of INTURN_ENCRYPTION_KEYS, also what is not encrypted.

    May be stopped and repeated at any time, and turns may run meanwhile. Exit code 1: something could not be
    opened.
    """
    from inturn.cli.keys import run_rotate

    raise typer.Exit(run_rotate(as_json=as_json))


@keys.command("status", epilog="Example: inturn keys status --json")
def keys_status_command(as_json: Json = False) -> None:
    """Count what each key has sealed, and say which may be removed. It reads all that is stored.

    Exit code 1: a key is missing that something was sealed with.
    """
    from inturn.cli.keys import run_status

    raise typer.Exit(run_status(as_json=as_json))


@retention.callback(epilog="Example: inturn retention --last 5")
def retention_command(
    context: typer.Context,
    last: Annotated[int, typer.Option(min=1, help="So many runs.")] = 10,
    as_json: Json = False,
) -> None:
    """List the last runs of retention, the newest first: what was deleted, what was abandoned, what stayed.

    The last 100 runs are kept for 90 days.
    """
    if context.invoked_subcommand is None:
        from inturn.cli.retention import run_show

        raise typer.Exit(run_show(last, as_json=as_json))


@retention.command("run", epilog="Example: inturn retention run --dry-run")
def retention_run_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only, and change nothing.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait while nothing gets on.")] = 90.0,
    as_json: Json = False,
) -> None:
    """Have a worker apply the retention policy now, and print what it did.

    May be stopped at any time: workers go on with the run. Exit code 3: no worker got on with it.
    """
    from inturn.cli.retention import run_now

    raise typer.Exit(run_now(timeout, dry_run=dry_run, as_json=as_json))


def main() -> None:
    """Run the command; an error of ours is one line on standard error, and exit code 2."""
    set_actor(f"cli:{_operator()}")
    try:
        app()
    except InturnError as error:
        typer.secho(f"inturn: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)


def _operator() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # nobody has a name here, as in a container
        return str(os.getuid())
