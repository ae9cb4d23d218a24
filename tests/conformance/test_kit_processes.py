"""The kit finds what is broken: by random histories, in other processes, at great length."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inturn.persistence import (
    Committed,
    Loaded,
    MemoryAdapter,
    MessageQuery,
    PersistenceAdapter,
    SQLiteAdapter,
    rows,
)
from inturn.persistence.sql.sqlite_connections import transaction
from inturn.session import SessionState, TurnRecord
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen
from tests.conformance import test_kit as broken


class TurnLater(SQLiteAdapter):
    """Writes a commit in two steps, and does not know that it may not live to take the second."""

    def commit(self, *args: Any, turn: TurnRecord | None = None, **options: Any) -> Committed:
        committed = super().commit(*args, **options)
        if turn is not None:
            threading.Event().wait(0.02)
            row = {**rows.turn_row(turn), "created_at": turn.created_at.isoformat()}
            with transaction(self._connections, write=True) as cursor:
                cursor.execute(self._queries["remember_turn"], row)
        return committed._replace(turn=turn)


class LastWriterWins(SQLiteAdapter):
    """Looks at the version, and writes later."""

    def commit(self, session: SessionState, *args: Any, expected_version: int, **options: Any) -> Committed:
        threading.Event().wait(0.005)
        found = self.load(session.id)
        assert found is not None
        session = session.model_copy(update={"message_count": found.session.message_count})
        return super().commit(session, *args, expected_version=found.session.version, **options)


class ClockGoesBack(SQLiteAdapter):
    """Takes each machine's clock at its word."""

    def commit(self, session: SessionState, *args: Any, **options: Any) -> Committed:
        return super().commit(session.model_copy(update={"updated_at": session.created_at}), *args, **options)


class ReadsItAll(MemoryAdapter):
    """Reads the whole history to give its end."""

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        found = super().load(session_id, last_messages=10**6, turn_id=turn_id)
        return found and found._replace(messages=found.messages[-last_messages:])


class CountsInWindows(MemoryAdapter):
    """Never looks further back than a window."""

    def find_messages(self, query: MessageQuery) -> Any:
        page = super().find_messages(query)
        return page._replace(cursor=None) if query.limit == 1000 else page


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (TurnLater, AdapterConformance.test_a_writer_killed_in_mid_commit_leaves_all_of_it_or_nothing),
        (LastWriterWins, AdapterConformance.test_writers_of_several_processes_lose_nothing),
        (ClockGoesBack, AdapterConformance.test_writers_whose_clocks_disagree_lose_nothing),
    ],
)
def test_what_is_broken_among_processes_is_found(
    tmp_path: Path, broken: type[SQLiteAdapter], check: Callable[..., None]
) -> None:
    def run(kind: type[SQLiteAdapter]) -> None:
        url = f"sqlite:///{tmp_path}/{kind.__name__}.db"
        with kind(url) as adapter:
            check(AdapterConformance(), SQLiteAdapter(url), elsewhere(adapter, functools.partial(kind, url)))

    run(SQLiteAdapter)
    with pytest.raises(AssertionError):
        run(broken)


@pytest.mark.parametrize(
    "kind",
    [
        broken.NoVersionCheck,
        broken.NoTurnCheck,
        broken.VersionBeforeTurn,
        broken.MessagesFirst,
        broken.OldestMessages,
        broken.TiesAreLost,
        broken.DeletesTheRowOnly,
        broken.DeletesWhatHasChanged,
        broken.BringsBackTheDead,
        broken.EmptyIsNothing,
    ],
)
def test_what_is_broken_is_found_by_random_histories(kind: type[MemoryAdapter]) -> None:
    class Patient(AdapterConformance):
        # Which histories are drawn depends on the modules that are loaded, so on the tests run before.
        examples = 200

    with pytest.raises((AssertionError, ValueError, KeyError)):
        Patient().test_any_history_of_calls_is_answered_as_by_the_reference(kind())


@pytest.mark.parametrize("kind", [ReadsItAll, CountsInWindows])
def test_what_is_broken_at_great_length_is_found(kind: type[MemoryAdapter]) -> None:
    with pytest.raises(AssertionError):
        AdapterConformance().test_a_long_session_is_read_by_its_window_and_its_pages(kind())


@pytest.mark.parametrize(
    ("adapter", "reopen", "why"),
    [
        (MemoryAdapter(), None, "not durable"),
        (SQLiteAdapter("sqlite:///:memory:"), None, "no fixture `reopen`"),
        (SQLiteAdapter("sqlite:///:memory:"), lambda: SQLiteAdapter("sqlite:///x.db"), "cannot be pickled"),
    ],
)
def test_a_store_that_no_other_process_can_open_is_skipped_with_the_reason(
    adapter: PersistenceAdapter, reopen: Any, why: str
) -> None:
    with pytest.raises(pytest.skip.Exception, match=why):
        elsewhere(adapter, reopen)


def elsewhere(adapter: PersistenceAdapter, reopen: Any) -> Reopen:
    """What the fixture `elsewhere` gives."""
    fixture: Any = AdapterConformance.elsewhere
    given: Reopen = fixture.__wrapped__(AdapterConformance(), adapter, reopen)
    return given
