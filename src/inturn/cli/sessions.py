"""`inturn sessions list`, `show` and `messages`: which there are, where one stands, what was said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from inturn.cli.ages import ago, read_age
from inturn.cli.exits import DONE, FAILED
from inturn.cli.local import local_settings
from inturn.cli.output import fail, note, out, print_json, print_table
from inturn.cli.text import plain
from inturn.cli.waiting import Waiting, waiting_of
from inturn.contract import DeadLetter, DeliveryView
from inturn.ids import check_id
from inturn.persistence import MessageQuery, PersistenceAdapter, SessionQuery
from inturn.persistence.adapter import MAX_PAGE
from inturn.persistence.opening import open_store
from inturn.session.state import Message, SessionState, Status, UnreadableSession, utcnow
from inturn.turns import DeadLetters, Deliveries, Mailbox
from inturn.turns.connection import connect
from inturn.turns.holding import Holding, Holdings

if TYPE_CHECKING:
    from redis import Redis

    from inturn.settings import Settings

OWN_NOTES = "inturn:"
"""What the IDs of sessions begin with that nobody has had: notes of inturn's own in the store."""

_COLOURS = {"active": "green", "completed": "cyan", "abandoned": "dim"}
_ROLES = {"user": "cyan", "assistant": "green", "tool": "dim", "system": "yellow"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of the sessions are meant, and their order, as the options say it."""

    user: str | None
    status: Status | None
    agent: str | None
    older_than: str | None
    newer_than: str | None
    order: Literal["newest", "oldest"]

    def query(self, limit: int, cursor: str | None) -> SessionQuery:
        """One page of them; raises `InvalidInputError` for an age that is none."""
        now = utcnow()
        return SessionQuery(
            user_id=None if self.user is None else check_id(self.user, "user ID"),
            status=self.status,
            agent_name=self.agent,
            older_than=None if self.older_than is None else now - read_age(self.older_than),
            newer_than=None if self.newer_than is None else now - read_age(self.newer_than),
            order=self.order,
            limit=limit,
            cursor=cursor,
            unreadable=True,
        )


def run_list(wanted: Wanted, limit: int, cursor: str | None, *, everything: bool, as_json: bool) -> int:
    """Print a page of sessions, or all. Returns the exit code."""
    query = wanted.query(MAX_PAGE if everything else limit, cursor)
    found = False
    with open_store(local_settings()) as store:
        while True:
            page = store.find_sessions(query)
            shown = [session for session in page.items if not session.id.startswith(OWN_NOTES)]
            found = found or bool(shown)
            if as_json:
                for session in shown:
                    print_json(_in_short(session))
            elif shown:
                _print_list(shown)
            cursor = page.cursor
            if cursor is None or not everything:
                break
            query = wanted.query(MAX_PAGE, cursor)
    if not found and not as_json:
        out().print("none")
    if cursor is not None:
        note(f"there are more: the same with --cursor {cursor!r}, or --all")
    return DONE


def run_show(session_id: str, *, as_json: bool) -> int:
    """Print all there is to know of one, but what was said. Returns the exit code."""
    check_id(session_id)
    settings = local_settings()
    with ExitStack() as stack:
        store = stack.enter_context(open_store(settings))
        redis = stack.enter_context(connect(settings))
        seen = look(settings, store, redis, session_id)
    if seen.session is None and not seen.waiting:
        return unknown(session_id)
    if as_json:
        print_json(seen.as_object())
    else:
        _print_one(seen)
    return DONE


def run_messages(session_id: str, last: int, before: int | None, *, everything: bool, as_json: bool) -> int:
    """Print the history of one, or its end. Returns the exit code."""
    with open_store(local_settings()) as store:
        if store.load(check_id(session_id)) is None:
            return unknown(session_id)
        some = _all_messages(store, session_id) if everything else _last(store, session_id, last, before)
        for message in some:
            if as_json:
                print_json(message.model_dump(mode="json"))
            else:
                _print_message(message)
    return DONE


def unknown(session_id: str) -> int:
    """Say that there is no such session; gives the exit code."""
    fail(f"there is no session {session_id!r}; `inturn sessions list` has those that there are")
    return FAILED


@dataclass(frozen=True, slots=True)
class Seen:
    """A session as it stands now. `session` is None while its first turn has not ended."""

    session_id: str
    session: SessionState | None
    waiting: list[Waiting]
    lease: Holding
    dead: list[DeadLetter]
    deliveries: list[DeliveryView]

    def as_object(self) -> dict[str, Any]:
        """As JSON has it."""
        state = None if self.session is None else self.session.model_dump(mode="json", exclude={"history"})
        lease = self.lease
        held = {"owner": lease.owner, "seconds": round(lease.seconds, 3), "fence": lease.fence}
        return {
            "session_id": self.session_id,
            "session": state,
            "waiting": [turn.as_object() for turn in self.waiting],
            "lease": held if lease.is_live else None,
            "asleep": round(lease.asleep, 3),
            "dead_letters": [letter.model_dump(mode="json") for letter in self.dead],
            "deliveries": [view.model_dump(mode="json") for view in self.deliveries],
        }


def look(settings: Settings, store: PersistenceAdapter, redis: Redis, session_id: str) -> Seen:
    """See where a session stands. Raises what store and Redis raise."""
    # In this order: a turn leaves the mailbox after its session is in the store.
    waiting = waiting_of(Mailbox(redis, settings), session_id)
    lease = Holdings(redis, settings.key_prefix).look(session_id)
    loaded = store.load(session_id)
    return Seen(
        session_id,
        None if loaded is None else loaded.session,
        waiting,
        lease,
        list(DeadLetters(redis, settings).letters(session_id)),
        list(Deliveries(redis, settings).overview(session_id)),
    )


def _in_short(session: SessionState) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "user_id": session.user_id,
        "agent_name": session.agent_name,
        "status": session.status,
        "route": session.current_route.id if session.current_route else None,
        "step": session.current_step.id if session.current_step else None,
        "messages": session.message_count,
        "created_at": session.created_at.isoformat(),
        "updated_at": session.updated_at.isoformat(),
        "version": session.version,
        "unreadable": session.reason if isinstance(session, UnreadableSession) else None,
    }


def _last(store: PersistenceAdapter, session_id: str, last: int, before: int | None) -> list[Message]:
    found: list[Message] = []
    cursor: str | None = None
    while len(found) < last:
        query = MessageQuery(
            session_id=session_id,
            before=before,
            order="newest",
            cursor=cursor,
            limit=min(MAX_PAGE, last - len(found)),
        )
        page = store.find_messages(query)
        found += page.items
        if (cursor := page.cursor) is None:
            break
    return found[::-1]


def _all_messages(store: PersistenceAdapter, session_id: str) -> Iterator[Message]:
    cursor: str | None = None
    while True:
        page = store.find_messages(MessageQuery(session_id=session_id, cursor=cursor, limit=MAX_PAGE))
        yield from page.items
        if (cursor := page.cursor) is None:
            return


def _print_list(sessions: Sequence[SessionState]) -> None:
    table = Table()
    table.add_column("session", overflow="fold")
    table.add_column("user", overflow="fold")
    table.add_column("status")
    table.add_column("route", overflow="fold")
    table.add_column("messages", justify="right")
    table.add_column("changed", no_wrap=True)
    now = utcnow()
    for session in sessions:
        table.add_row(
            plain(session.id),
            plain(session.user_id or ""),
            f"[{_COLOURS[session.status]}]{session.status}[/]",
            f"[red]{plain(session.reason)}[/]"
            if isinstance(session, UnreadableSession)
            else plain(_place(session)),
            str(session.message_count),
            ago(now, session.updated_at),
        )
    print_table(table)


def _print_one(seen: Seen) -> None:
    now, console, session = utcnow(), out(), seen.session

    def tell(name: str, value: object) -> None:
        if value not in (None, ""):
            console.print(f"{name:13}{plain(value, lines=True)}")

    tell("session", seen.session_id)
    if session is None:
        tell("status", "not in the store yet: its first turn has not ended")
    else:
        tell("user", session.user_id)
        tell("agent", session.agent_name)
        tell("status", session.status)
        tell("route", _place(session))
        tell("created", _when(session, "created_at"))
        tell("changed", _when(session, "updated_at"))
        tell("completed", _when(session, "completed_at"))
        tell("messages", session.message_count)
        tell("version", session.version)
        for name, value in session.data.items():
            tell("data", f"{name} = {json.dumps(value, ensure_ascii=False)}")
        for name, value in session.metadata.items():
            tell("metadata", f"{name} = {json.dumps(value, ensure_ascii=False)}")
    lease = seen.lease
    if lease.is_live:
        tell("driven by", f"{lease.owner}, for {lease.seconds:.1f} s unless renewed (fence {lease.fence})")
    elif lease.owner is not None and seen.waiting:
        tell("left behind", f"by {lease.owner}; a sweep wakes it")
    elif lease.asleep:
        tell("asleep", f"its next try is in {lease.asleep:.1f} s")
    for turn in seen.waiting:
        tell("running" if turn.running else "waiting", turn.in_words(now))
    for letter in seen.dead:
        words = f"{letter.turn_id}, {ago(now, letter.failed_at)} ago: {letter.error.type}"
        tell("dead letter", f"{words}: {letter.error.message}")
    for view in seen.deliveries:
        doubtful = ", doubtful" if view.doubtful else ""
        tell("delivery", f"{view.turn_id}, {view.channel or 'a channel'}: {view.state}{doubtful}")


def _print_message(message: Message) -> None:
    console = out()
    colour = _ROLES.get(message.role, "default")
    told = (message.event or {}).keys() & {"failed", "interrupted", "erased"}
    notes = "".join(f", {name}" for name in sorted(told))
    when = f"{message.created_at:%Y-%m-%d %H:%M:%S}"
    console.print(f"[dim]{message.sequence:>5}  {when}[/]  [{colour}]{message.role}[/][dim]{notes}[/]")
    text = message.content or json.dumps(message.tool_calls, ensure_ascii=False)
    for line in text.expandtabs().split("\n"):
        console.print(f"       {plain(line)}")


def _place(session: SessionState) -> str:
    parts = [part.id for part in (session.current_route, session.current_step) if part is not None]
    return " / ".join(parts)


def _when(session: SessionState, name: str) -> str | None:
    time = getattr(session, name)
    return None if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC, {ago(utcnow(), time)} ago"
