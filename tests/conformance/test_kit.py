"""The conformance kit fails an adapter that breaks a promise, and skips what cannot be asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from inturn.errors import SessionConflictError
from inturn.persistence import (
    Committed,
    Loaded,
    MemoryAdapter,
    MessageQuery,
    Page,
    SessionQuery,
    Target,
    rows,
)
from inturn.session import Message, SessionState, TurnRecord
from inturn.testing.conformance import AdapterConformance
from tests.conformance.scripts import run_script


class NoVersionCheck(MemoryAdapter):
    """Writes over whatever is there."""

    def commit(self, session: SessionState, *args: Any, expected_version: int, **options: Any) -> Committed:
        row = self._sessions.get(session.id)
        actual = 0 if row is None else row["version"]
        return super().commit(session, *args, expected_version=actual, **options)


class CheckThenWrite(MemoryAdapter):
    """Looks at the version, and writes later: the classic race."""

    def commit(self, session: SessionState, *args: Any, expected_version: int, **options: Any) -> Committed:
        row = self._sessions.get(session.id)
        actual = None if row is None else row["version"]
        if (actual or 0) != expected_version:
            raise SessionConflictError(session.id, expected_version, actual)
        threading.Event().wait(0.005)
        row = self._sessions.get(session.id)
        session = session.model_copy(update={"message_count": row["message_count"] if row else 0})
        return super().commit(session, *args, expected_version=row["version"] if row else 0, **options)


class NoTurnCheck(MemoryAdapter):
    """Forgets which turns were committed."""

    def commit(self, *args: Any, turn: TurnRecord | None = None, **options: Any) -> Committed:
        return super().commit(*args, **options)


class VersionBeforeTurn(MemoryAdapter):
    """Answers a repeated turn with a conflict when the session has moved on."""

    def commit(self, session: SessionState, *args: Any, expected_version: int, **options: Any) -> Committed:
        row = self._sessions.get(session.id)
        rows.check_current(session, expected_version, row and {**row, "message_count": session.message_count})
        return super().commit(session, *args, expected_version=expected_version, **options)


class GlobalTurns(MemoryAdapter):
    """Takes a turn ID for the same turn in every session."""

    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        for turns in self._turns.values():
            if turn is not None and turn.turn_id in turns:
                known = rows.turn_from_row(turns[turn.turn_id], turn.turn_id)
                return Committed(session, [], known, repeated=True)
        return super().commit(session, messages, expected_version=expected_version, turn=turn)


class MessagesFirst(MemoryAdapter):
    """Writes messages before it knows that the session may be written."""

    def commit(self, session: SessionState, messages: Sequence[Message] = (), **options: Any) -> Committed:
        stored = self._messages.get(session.id)
        if stored is not None:
            stored += [rows.message_row(message) for message in messages]
        committed = super().commit(session, messages, **options)
        if stored is not None and messages and not committed.repeated:
            del stored[-2 * len(messages) : -len(messages)]
        return committed


class ClockGoesBack(MemoryAdapter):
    """Takes this machine's clock at its word."""

    def commit(self, session: SessionState, *args: Any, **options: Any) -> Committed:
        return super().commit(session.model_copy(update={"updated_at": session.created_at}), *args, **options)


class SharesWhatItStores(MemoryAdapter):
    """Gives out the very state that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[str, SessionState] = {}

    def commit(self, *args: Any, **options: Any) -> Committed:
        committed = super().commit(*args, **options)
        self._given[committed.session.id] = committed.session
        return committed

    def load(self, session_id: str, **options: Any) -> Loaded | None:
        found = super().load(session_id, **options)
        return found and found._replace(session=self._given[session_id])


class TornLoad(MemoryAdapter):
    """Reads session and messages at two moments."""

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        found = super().load(session_id, last_messages=last_messages, turn_id=turn_id)
        threading.Event().wait(0.001)
        later = super().load(session_id, last_messages=last_messages, turn_id=turn_id)
        return found and later and found._replace(messages=later.messages)


class OldestMessages(MemoryAdapter):
    """Gives the first messages for the last."""

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        found = super().load(session_id, last_messages=1000, turn_id=turn_id)
        return found and found._replace(messages=found.messages[:last_messages])


class PagesByNumber(MemoryAdapter):
    """Counts rows instead of remembering where it stopped."""

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        start = int(query.cursor or 0)
        every = MessageQuery(
            session_id=query.session_id, user_id=query.user_id, order=query.order, limit=1000
        )
        found = super().find_messages(every).items
        end = start + query.limit
        return Page(found[start:end], str(end) if len(found) > end else None)


class TiesAreLost(MemoryAdapter):
    """Goes on after the last time, and so skips what shares it."""

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        page = super().find_sessions(query)
        if page.cursor is None:
            return page
        kind = f"sessions, {query.order} first"
        edge = "" if query.order == "newest" else "\U0010ffff"
        return Page(page.items, rows.encode_cursor(kind, page.items[-1].updated_at, edge))


class DeletesTheRowOnly(MemoryAdapter):
    """Leaves messages and turns behind."""

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        kept = {name: (self._messages.get(name), self._turns.get(name)) for name, _ in targets}
        gone = super().delete_sessions(targets)
        for name in gone:
            messages, turns = kept[name]
            self._messages[name], self._turns[name] = messages or [], turns or {}
        return gone


class DeletesWhatHasChanged(MemoryAdapter):
    """Does not look at the version."""

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        return super().delete_sessions([Target(target.session_id) for target in targets])


class BringsBackTheDead(MemoryAdapter):
    """Creates a session anew when a late commit comes."""

    def commit(self, session: SessionState, *args: Any, expected_version: int, **options: Any) -> Committed:
        if session.id not in self._sessions:
            session = session.model_copy(update={"message_count": 0})
            expected_version = 0
        return super().commit(session, *args, expected_version=expected_version, **options)


class EmptyIsNothing(MemoryAdapter):
    """Takes what is false for what is not there."""

    def load(self, session_id: str, **options: Any) -> Loaded | None:
        found = super().load(session_id, **options)
        if found is not None:
            found.session.pending = found.session.pending or None
        return found


Kit = AdapterConformance


@pytest.mark.parametrize(
    ("broken", "check", "arguments"),
    [
        (NoVersionCheck, Kit.test_another_version_is_a_conflict_and_nothing_is_written, [1]),
        (NoVersionCheck, Kit.test_creating_a_session_that_is_there_is_a_conflict, [0]),
        (CheckThenWrite, Kit.test_one_writer_wins_each_version, "race"),
        (CheckThenWrite, Kit.test_one_writer_creates_a_session, "race"),
        (CheckThenWrite, Kit.test_nothing_is_lost_among_writers_that_repeat, "race"),
        (NoTurnCheck, Kit.test_a_turn_is_committed_once, [2]),
        (NoTurnCheck, Kit.test_a_turn_is_committed_by_whoever_comes_first, "race"),
        (VersionBeforeTurn, Kit.test_a_turn_is_committed_once, [1]),
        (GlobalTurns, Kit.test_one_turn_id_in_two_sessions_is_two_turns, []),
        (MessagesFirst, Kit.test_another_version_is_a_conflict_and_nothing_is_written, [1]),
        (ClockGoesBack, Kit.test_updated_at_never_goes_back, []),
        (SharesWhatItStores, Kit.test_what_was_loaded_is_a_copy, []),
        (TornLoad, Kit.test_a_load_is_one_state, "race"),
        (OldestMessages, Kit.test_the_newest_messages_come_oldest_first, [3, 5]),
        (PagesByNumber, Kit.test_messages_that_come_meanwhile_disturb_no_pages, ["newest"]),
        (TiesAreLost, Kit.test_pages_of_sessions_neither_skip_nor_repeat, ["newest", 2]),
        (TiesAreLost, Kit.test_pages_of_sessions_neither_skip_nor_repeat, ["oldest", 2]),
        (DeletesTheRowOnly, Kit.test_a_session_goes_with_its_messages_and_turns, []),
        (DeletesTheRowOnly, Kit.test_a_deleted_session_may_be_created_again, []),
        (DeletesWhatHasChanged, Kit.test_a_session_that_has_changed_is_left_alone, []),
        (BringsBackTheDead, Kit.test_a_running_turn_does_not_bring_a_deleted_session_back, []),
        (BringsBackTheDead, Kit.test_a_deletion_and_a_commit_never_leave_half_a_session, "race"),
        (EmptyIsNothing, Kit.test_nothing_stays_nothing_and_empty_stays_empty, []),
    ],
)
def test_a_broken_promise_is_found(
    broken: type[MemoryAdapter], check: Callable[..., None], arguments: list[Any] | str
) -> None:
    def run(adapter: MemoryAdapter) -> None:
        if arguments != "race":
            check(Kit(), adapter, *arguments)
        elif check is Kit.test_a_turn_is_committed_by_whoever_comes_first:
            check(Kit(), [adapter], True)
        else:
            check(Kit(), [adapter])

    run(MemoryAdapter())
    with pytest.raises((AssertionError, pytest.fail.Exception, SessionConflictError, ValueError)):
        run(broken())


def test_the_package_needs_no_pytest() -> None:
    """Only the kit itself does."""
    said = run_script(
        """
        import sys
        import inturn.testing
        print("pytest" in sys.modules)
        """
    )
    assert said == "False\n"
