"""`inturn turns list` and `cancel`: the turns that wait or run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from rich.table import Table

from inturn.accepting import open_inbox
from inturn.cli.ages import ago
from inturn.cli.exits import DONE, FAILED
from inturn.cli.local import local_settings
from inturn.cli.noting import note_down
from inturn.cli.output import agreed, fail, note, out, print_json, print_table
from inturn.cli.text import plain
from inturn.client import Client
from inturn.contract import RespondPayload, decode_payload
from inturn.errors import InturnError, InvalidInputError
from inturn.ids import check_id, create_turn_id, session_of_turn
from inturn.session.state import utcnow
from inturn.settings import Settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect
from inturn.turns.mailbox import Item


class Waiting(NamedTuple):
    """A turn in its mailbox; `ahead` are before it. From `kind` on all is None where nobody can read it."""

    session_id: str
    turn_id: str
    ahead: int
    running: bool
    attempts: int
    kind: str | None = None
    user_id: str | None = None
    channel: str | None = None
    accepted_at: datetime | None = None

    def as_object(self) -> dict[str, Any]:
        """As JSON has it."""
        accepted_at = None if self.accepted_at is None else self.accepted_at.isoformat()
        state = "running" if self.running else "waiting"
        return {"state": state, **self._asdict(), "accepted_at": accepted_at}

    def in_words(self, now: datetime) -> str:
        """As a line for people."""
        parts = [self.turn_id, self.kind or "unreadable"]
        if self.channel:
            parts.append(f"by {self.channel}")
        if self.accepted_at is not None:
            parts.append(f"accepted {ago(now, self.accepted_at)} ago")
        if self.attempts:
            parts.append(f"try {self.attempts}")
        return ", ".join(parts)


def waiting_of(mailbox: Mailbox, session_id: str) -> list[Waiting]:
    """The turns that wait or run in a session, in order."""
    return list(_waiting(mailbox.items(session_id)))


def run_list(session_id: str | None, limit: int, *, as_json: bool) -> int:
    """Print them, of all sessions or of one. Returns the exit code."""
    settings = local_settings()
    with connect(settings) as redis:
        mailbox = Mailbox(redis, settings)
        items = mailbox.items(None if session_id is None else check_id(session_id))
        found = list(islice(_waiting(items), limit + 1))
        total = mailbox.depth() if len(found) > limit and session_id is None else None
    more = len(found) > limit
    found = found[:limit]
    note_down(settings, "read", "turns", (turn.session_id for turn in found))
    if as_json:
        for turn in found:
            print_json(turn.as_object())
    elif found:
        _print(found)
    else:
        out().print("no turn waits or runs")
    if more:
        note("there are more" + ("" if total is None else f", {total:,} in all") + ": the same with --limit")
    elif settings.inbox == "database":
        _count_inbox(settings)
    return DONE


def run_cancel(turn_id: str | None, session_id: str | None, *, yes: bool, as_json: bool) -> int:
    """Cancel one, or all of a session. Returns the exit code."""
    if turn_id is None and session_id is None:
        raise InvalidInputError("name a turn, or all of a session with --session")
    settings = local_settings()
    with Client(settings) as client:
        if turn_id is not None:
            session_id = check_id(session_id) if session_id is not None else session_of_turn(turn_id)
            turns = [create_turn_id(session_id, turn_id)]
        else:
            assert session_id is not None
            with connect(settings) as redis:
                # The last one first: else each of them would begin to run before it is cancelled.
                turns = Mailbox(redis, settings).queue(check_id(session_id))[::-1]
            if turns and not agreed(f"Cancel {len(turns)} turns of session {session_id!r}?", yes=yes):
                return FAILED
        note_down(settings, "change", "cancel", [session_id] if turns else [], turns[0] if turn_id else None)
        became = {turn: client.cancel(session_id, turn) for turn in turns}
    done = {turn: what for turn, what in became.items() if what != "unknown"}
    if as_json:
        print_json({"session_id": session_id, "turns": became})
    else:
        for turn, what in done.items():
            words = (
                "dropped before it ran" if what == "dropped" else "asked to stop; it ends with its next piece"
            )
            out().print(f"{plain(turn)}: {words}")
    if not done:
        none = (
            f"no turn of {session_id!r} waits or runs"
            if turn_id is None
            else f"turn {turn_id!r} has ended, or never was"
        )
        fail(f"{none}; `inturn turns list` has those that wait or run")
        return FAILED
    return DONE


def _waiting(items: Iterable[Item]) -> Iterable[Waiting]:
    session_id, ahead = "", 0
    for item in items:
        ahead = ahead + 1 if item.session_id == session_id else 0
        session_id = item.session_id
        turn = Waiting(session_id, item.turn_id, ahead, item.running, item.attempts)
        try:
            payload = decode_payload(item.payload)
        except InturnError:  # of a newer release, or sealed with another key: its worker will say so
            yield turn
            continue
        channel = payload.channel if isinstance(payload, RespondPayload) else None
        yield turn._replace(
            kind=payload.kind, user_id=payload.user_id, channel=channel, accepted_at=payload.accepted_at
        )


def _count_inbox(settings: Settings) -> None:
    inbox = open_inbox(settings)
    assert inbox is not None
    try:
        note(f"the database's inbox has {inbox.total():,} turns that have not ended", "dim")
    finally:
        inbox.close()


def _print(found: list[Waiting]) -> None:
    table = Table()
    for name in ("session", "turn", "kind", "state", "tries", "accepted"):
        table.add_column(name, overflow="fold")
    now = utcnow()
    for turn in found:
        state = (
            "[green]running[/]"
            if turn.running
            else f"[yellow]behind {turn.ahead}[/]"
            if turn.ahead
            else "[yellow]next[/]"
        )
        table.add_row(
            plain(turn.session_id),
            plain(turn.turn_id),
            turn.kind or "unreadable",
            state,
            str(turn.attempts or ""),
            "" if turn.accepted_at is None else ago(now, turn.accepted_at),
        )
    print_table(table)
