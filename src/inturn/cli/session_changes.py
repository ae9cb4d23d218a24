"""`inturn sessions complete`, `abandon` and `delete`: changes of sessions, in order with their turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from inturn.accepting import open_inbox
from inturn.cli.exits import DONE, FAILED, code_of
from inturn.cli.local import local_settings
from inturn.cli.noting import note_down
from inturn.cli.output import agreed, fail, out, print_json
from inturn.cli.sessions import unknown
from inturn.cli.text import plain
from inturn.client import Client, TurnHandle
from inturn.errors import InturnError
from inturn.ids import check_id
from inturn.persistence import MessageQuery, PersistenceAdapter, Target
from inturn.persistence.adapter import MAX_PAGE
from inturn.persistence.opening import open_store
from inturn.session.state import SessionState, Status
from inturn.turns import Deliveries, Mailbox
from inturn.turns.broker import connect_broker
from inturn.turns.connection import connect
from inturn.turns.traces import Traces

if TYPE_CHECKING:
    from inturn.settings import Settings


def run_status(session_ids: Sequence[str], status: Status, timeout: float, *, as_json: bool) -> int:
    """Have a status set, behind the turns that wait. Returns the exit code: the worst of them."""
    settings = local_settings()
    code = DONE
    asked: list[TurnHandle] = []
    with open_store(settings) as store, Client(settings) as client:
        for session_id in dict.fromkeys(session_ids):
            # It would be made by the change.
            if store.load(check_id(session_id)) is None:
                code = max(code, unknown(session_id))
                continue
            note_down(settings, "change", status, [session_id])
            asked.append(client.save_session(session_id, status=status))
        for handle in asked:
            told: dict[str, Any] = {"session_id": handle.session_id, "turn_id": handle.turn_id}
            words = "asked for" if timeout <= 0 else status
            try:
                if timeout > 0:
                    handle.get(timeout)
                told["status"] = status if timeout > 0 else "asked"
            except InturnError as error:
                code = max(code, code_of(error))
                told |= {"error": type(error).__name__, "detail": str(error)}
                if not as_json:
                    fail(error)
                    continue
            if as_json:
                print_json(told)
            else:
                out().print(f"{plain(handle.session_id)}: {words}")
    return code


def run_delete(session_ids: Sequence[str], *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Delete sessions, after a question. Returns the exit code."""
    settings = local_settings()
    with ExitStack() as stack:
        store = stack.enter_context(open_store(settings))
        found: list[SessionState] = []
        code = DONE
        for session_id in dict.fromkeys(map(check_id, session_ids)):
            loaded = store.load(session_id)
            if loaded is None:
                code = unknown(session_id)
            else:
                found.append(loaded.session)
        busy = busy_among(settings, [session.id for session in found])
        for session_id, why in busy.items():
            fail(f"session {session_id!r} stays: {why}")
            code = FAILED
        due = [session for session in found if session.id not in busy]
        messages = sum(session.message_count for session in due)
        words = f"{len(due)} session{'s' * (len(due) != 1)} with {messages} messages"
        if due and not dry_run and not agreed(f"Delete {words} for good?", yes=yes):
            return FAILED
        gone = [session.id for session in due] if dry_run else _delete(settings, store, due)
        for session in due:
            if session.id not in gone:
                fail(f"session {session.id!r} stays: it was changed just now; repeat the command")
                code = FAILED
            elif as_json:
                told = {"session_id": session.id, "messages": session.message_count, "dry_run": dry_run}
                print_json(told)
        if not as_json and due:
            out().print(f"{words} would go" if dry_run else f"{len(gone)} of {len(due)} deleted")
    return code


def busy_among(settings: Settings, session_ids: Sequence[str]) -> Mapping[str, str]:
    """Which of these sessions cannot be deleted now, and why."""
    if not session_ids:
        return {}
    with connect(settings) as redis:
        turns = Mailbox(redis, settings).waiting(session_ids)
        replies = Deliveries(redis, settings).mailbox.waiting(session_ids)
    inbox = open_inbox(settings)
    if inbox is not None:
        try:
            turns |= inbox.among(session_ids)
        finally:
            inbox.close()
    mend = "turns of it run or wait; stop them with `inturn turns cancel --session`"
    why = dict.fromkeys(sorted(replies), "a reply of it is on its way out; repeat the command in a moment")
    return why | dict.fromkeys(sorted(turns), mend)


def _delete(settings: Settings, store: PersistenceAdapter, due: Sequence[SessionState]) -> list[str]:
    """Delete them where nothing has changed since, and what Redis knows of them; gives the IDs."""
    turns = {session.id: turns_of(store, session.id) for session in due}
    # Bound to the versions that were seen: a turn that has been committed since is not deleted unseen.
    gone = store.delete_sessions([Target(session.id, session.version) for session in due])
    forget(settings, {session_id: turns[session_id] for session_id in gone})
    return gone


def turns_of(store: PersistenceAdapter, session_id: str) -> list[str]:
    """The turns that a session's history names."""
    turns: dict[str, None] = {}
    cursor: str | None = None
    while True:
        page = store.find_messages(MessageQuery(session_id=session_id, cursor=cursor, limit=MAX_PAGE))
        turns |= {message.turn_id: None for message in page.items if message.turn_id is not None}
        if (cursor := page.cursor) is None:
            return list(turns)


def forget(settings: Settings, turns: Mapping[str, Sequence[str]]) -> None:
    """Remove what Redis and the result backend have of sessions that are gone, by these turns."""
    if turns:
        app = connect_broker(settings)
        try:
            with connect(settings) as redis:
                Traces(redis, settings, app).forget(turns)
        finally:
            app.close()
