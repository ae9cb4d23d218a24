"""`inturn turns dead`, `show`, `retry` and `drop`: the turns that failed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from inturn.cli.ages import ago, read_age
from inturn.cli.exits import DONE, FAILED, INTERRUPTED
from inturn.cli.local import local_settings
from inturn.cli.noting import note_down
from inturn.cli.output import agreed, bar, fail, note, out, print_json, print_table
from inturn.cli.text import plain
from inturn.client import Client
from inturn.contract import DeadLetter
from inturn.dead_turns import Retried
from inturn.errors import InvalidInputError
from inturn.ids import session_of_turn
from inturn.session.state import utcnow

MOST_ROWS = 200
"""Turns that a table shows, the newest; `--json` has them all."""


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
    settings = local_settings()
    with Client(settings) as client:
        found = which.find(client)
    note_down(settings, "read", "dead_letters", (letter.session_id for letter in found))
    if as_json:
        for letter in found:
            print_json(letter.model_dump(mode="json"))
    elif found:
        _print(found)
    else:
        out().print("none" if which.is_some else "no turn has failed")
    return DONE


def run_show(turn_id: str, session_id: str | None, *, text: bool, as_json: bool) -> int:
    """Print one of them, or where another turn stands. Returns the exit code."""
    console, settings = out(), local_settings()
    with Client(settings) as client:
        letter = client.dead.get(turn_id, session_id)
        payload = client.dead.payload(letter) if letter is not None and text else None
        if letter is None:
            return _show_other(client, turn_id, session_id, as_json=as_json)
    note_down(settings, "read", "dead_letter", [letter.session_id], letter.turn_id)
    facts: dict[str, Any] = {"state": "dead", **letter.model_dump(mode="json")}
    if as_json:
        print_json(facts | ({"payload": payload} if text else {}))
        return DONE
    error = facts.pop("error")
    facts |= {"error": error["type"], "why": error["message"], "tries": error["attempts"]}
    for name, value in facts.items():
        if value is not None:
            console.print(f"{name.replace('_', ' '):15}{plain(value, lines=True)}")
    if payload is not None:
        console.print(f"{'payload':15}{plain(_readable(payload), lines=True)}")
    return DONE


def _show_other(client: Client, turn_id: str, session_id: str | None, *, as_json: bool) -> int:
    if session_id is None:
        try:
            session_id = session_of_turn(turn_id)
        except InvalidInputError:
            fail(f"no turn {turn_id!r} has failed; if it waits or runs, name its session: --session")
            return FAILED
    handle = client.handle(session_id, turn_id)
    state = handle.status()
    if state == "unknown":
        fail(
            f"nobody knows a turn {turn_id!r} any more; what it has said is in `inturn sessions messages`, "
            "and `inturn turns dead` lists those that failed"
        )
        return FAILED
    if as_json:
        print_json({"state": state, "session_id": session_id, "turn_id": handle.turn_id})
    else:
        for name, value in (("state", state), ("session id", session_id), ("turn id", handle.turn_id)):
            out().print(f"{name:15}{plain(value)}")
    return DONE


def run_retry(turn_id: str | None, which: Which, *, as_json: bool) -> int:
    """Run one again, or many. Returns the exit code."""
    console = out()
    done: list[Retried] = []
    stopped = False
    settings = local_settings()
    with Client(settings) as client:
        letters = _chosen(client, turn_id, which)
        if turn_id is not None and not letters:
            return _unknown(turn_id)
        note_down(settings, "change", "retry", (letter.session_id for letter in letters), turn_id)
        try:
            with bar("offering again", "turns", len(letters)) as watch:
                for retried in client.dead.retry_all(letters):
                    done.append(retried)
                    watch(len(done), None)
        except KeyboardInterrupt:
            stopped = True
    offered = [each for each in done if each.turn is not None]
    kept = [each for each in done if each.turn is None]
    if as_json:
        print_json({"offered": [_told(each) for each in offered], "kept": _kept(kept)})
    else:
        if turn_id is not None and offered:
            console.print(f"asked for, as {plain(_told(offered[0])['as'])}; it runs behind those that wait")
        elif turn_id is None:
            console.print(f"{len(offered)} of {len(letters)} run again, behind those that wait")
    for error in sorted({str(each.error) for each in kept}):
        note(error)
    if stopped or kept:
        note("the others stay: the same command goes on with them")
    return INTERRUPTED if stopped else FAILED if kept else DONE


def run_drop(turn_id: str | None, which: Which, *, yes: bool, as_json: bool) -> int:
    """Forget one, or many. Returns the exit code."""
    settings = local_settings()
    with Client(settings) as client:
        letters = _chosen(client, turn_id, which)
        if turn_id is not None and not letters:
            return _unknown(turn_id)
        asks = turn_id is None and bool(letters)
        if asks and not agreed(f"Drop {len(letters)} turns for good?", yes=yes):
            return FAILED
        note_down(settings, "change", "drop", (letter.session_id for letter in letters), turn_id)
        dropped = sum(client.dead.drop(letter) for letter in letters)
    if as_json:
        print_json({"dropped": dropped})
    else:
        out().print(f"{dropped} dropped")
    return DONE


def _chosen(client: Client, turn_id: str | None, which: Which) -> list[DeadLetter]:
    if turn_id is None:
        if not which.is_some:
            raise InvalidInputError("name a turn, or say which with --session, --error, an age, or --all")
        return which.find(client)
    if which != Which(session_id=which.session_id):
        raise InvalidInputError("with a turn's ID only --session says more")
    letter = client.dead.get(turn_id, which.session_id)
    return [] if letter is None else [letter]


def _unknown(turn_id: str) -> int:
    fail(f"there is no turn {turn_id!r} that failed; `inturn turns dead` lists them")
    return FAILED


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


def _print(found: Sequence[DeadLetter]) -> None:
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
    print_table(table)
    if len(found) > MOST_ROWS:
        note(f"and {len(found) - MOST_ROWS} before them; --json has them all")
