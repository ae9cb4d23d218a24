"""`inturn turns`: the turns that failed: look at them, run them again, drop them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from inturn.cli.ages import ago, read_age
from inturn.cli.local import local_settings
from inturn.cli.text import plain
from inturn.client import Client
from inturn.contract import DeadLetter
from inturn.dead_turns import Retried
from inturn.session.state import utcnow

MOST_ROWS = 200
"""Turns that a table shows, the newest; `--json` has them all."""

STOPPED = 130
"""The exit code of a program that Ctrl-C has stopped."""


@dataclass(frozen=True, slots=True)
class Which:
    """Which of the turns are meant, as the options say it."""

    session_id: str | None = None
    error: str | None = None
    older_than: str | None = None
    newer_than: str | None = None
    everything: bool = False

    @property
    def is_some(self) -> bool:
        """Whether any option says so."""
        return self.everything or self != Which()

    def find(self, client: Client) -> list[DeadLetter]:
        """List them, oldest first."""
        now = utcnow()
        return client.dead.find(
            self.session_id,
            error=self.error,
            since=None if self.newer_than is None else now - read_age(self.newer_than),
            until=None if self.older_than is None else now - read_age(self.older_than),
        )


def run_dead(which: Which, *, as_json: bool) -> int:
    """Print the turns that failed. Returns the exit code."""
    console = Console(highlight=False)
    with Client(local_settings()) as client:
        found = which.find(client)
    if as_json:
        console.print_json(json.dumps({"dead": [letter.model_dump(mode="json") for letter in found]}))
    elif found:
        _print(console, found)
    else:
        console.print("none" if which.is_some else "no turn has failed")
    return 0


def run_show(turn_id: str, session_id: str | None, *, text: bool, as_json: bool) -> int:
    """Print one of them. Returns the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    with Client(local_settings()) as client:
        letter = client.dead.get(turn_id, session_id)
        payload = client.dead.payload(letter) if letter is not None and text else None
    if letter is None:
        return _unknown(turn_id)
    facts = letter.model_dump(mode="json")
    if as_json:
        console.print_json(json.dumps(facts | ({"payload": payload} if text else {})))
        return 0
    error = facts.pop("error")
    facts |= {"error": error["type"], "why": error["message"], "tries": error["attempts"]}
    for name, value in facts.items():
        if value is not None:
            console.print(f"{name.replace('_', ' '):15}{plain(value, lines=True)}")
    if payload is not None:
        console.print(f"{'payload':15}{plain(_readable(payload), lines=True)}")
    return 0


def run_retry(turn_id: str | None, which: Which, *, as_json: bool) -> int:
    """Run one again, or many. Returns the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    done: list[Retried] = []
    stopped = False
    with Client(local_settings()) as client:
        letters = _chosen(client, turn_id, which)
        if turn_id is not None and not letters:
            return _unknown(turn_id)
        try:
            with Progress(console=Console(stderr=True), disable=turn_id is not None or as_json) as progress:
                for retried in progress.track(
                    client.dead.retry_all(letters), total=len(letters), description="turns"
                ):
                    done.append(retried)
        except KeyboardInterrupt:
            stopped = True
    offered = [each for each in done if each.turn is not None]
    kept = [each for each in done if each.turn is None]
    if as_json:
        console.print_json(json.dumps({"offered": [_told(each) for each in offered], "kept": _kept(kept)}))
    else:
        if turn_id is not None and offered:
            console.print(f"asked for, as {plain(_told(offered[0])['as'])}; it runs behind those that wait")
        elif turn_id is None:
            console.print(f"{len(offered)} of {len(letters)} run again, behind those that wait")
        for error in sorted({str(each.error) for each in kept}):
            console.print(escape(error), style="yellow")
        if stopped or kept:
            console.print("the others stay: the same command goes on with them", style="yellow")
    return STOPPED if stopped else int(bool(kept))


def run_drop(turn_id: str | None, which: Which, *, yes: bool, as_json: bool) -> int:
    """Forget one, or many. Returns the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    with Client(local_settings()) as client:
        letters = _chosen(client, turn_id, which)
        if turn_id is not None and not letters:
            return _unknown(turn_id)
        many = turn_id is None and letters and not yes
        if many and not typer.confirm(f"Drop {len(letters)} turns for good?", err=True):
            return 1
        dropped = sum(client.dead.drop(letter) for letter in letters)
    if as_json:
        console.print_json(json.dumps({"dropped": dropped}))
    else:
        console.print(f"{dropped} dropped")
    return 0


def _chosen(client: Client, turn_id: str | None, which: Which) -> list[DeadLetter]:
    if turn_id is None:
        if not which.is_some:
            raise typer.BadParameter("name a turn, or say which with --session, --error, an age, or --all")
        return which.find(client)
    if which != Which(session_id=which.session_id):
        raise typer.BadParameter("with a turn's ID only --session says more")
    letter = client.dead.get(turn_id, which.session_id)
    return [] if letter is None else [letter]


def _unknown(turn_id: str) -> int:
    words = f"inturn: there is no turn {turn_id!r} that failed; `inturn turns dead` lists them"
    typer.secho(words, fg=typer.colors.RED, err=True)
    return 1


def _told(retried: Retried) -> dict[str, str]:
    new = "" if retried.turn is None else retried.turn.turn_id
    return {"session_id": retried.letter.session_id, "turn_id": retried.letter.turn_id, "as": new}


def _kept(kept: Sequence[Retried]) -> list[dict[str, str]]:
    return [
        {
            "session_id": each.letter.session_id,
            "turn_id": each.letter.turn_id,
            "error": type(each.error).__name__,
        }
        for each in kept
    ]


def _readable(payload: str) -> str:
    try:
        return json.dumps(json.loads(payload), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return payload


def _print(console: Console, found: Sequence[DeadLetter]) -> None:
    table = Table()
    for name in ("session", "turn", "kind", "channel", "failed", "tries", "error"):
        table.add_column(name, overflow="fold")
    now = utcnow()
    for letter in found[-MOST_ROWS:]:
        table.add_row(
            plain(letter.session_id),
            plain(letter.turn_id),
            letter.kind or "unreadable",
            plain(letter.channel or ""),
            ago(now, letter.failed_at),
            str(letter.error.attempts),
            plain(f"{letter.error.type}: {letter.error.message}"),
        )
    console.print(table)
    if len(found) > MOST_ROWS:
        console.print(f"and {len(found) - MOST_ROWS} before them; --json has them all")
