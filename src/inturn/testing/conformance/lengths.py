"""The kit on long sessions: a turn costs the same at the end of a long conversation as at its beginning."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from inturn.persistence.adapter import MAX_PAGE, MessageQuery, PersistenceAdapter, Target
from inturn.session.state import SessionState
from inturn.testing.conformance.base import Conformance, message, new_session, recommit, turn
from inturn.testing.conformance.listings import pages

SHORT = 100


class LengthConformance(Conformance):
    """A session that went on for very long."""

    long_session: ClassVar[int] = 5_000
    """How many messages it has."""

    def test_a_long_session_is_read_by_its_window_and_its_pages(self, adapter: PersistenceAdapter) -> None:
        """`load`, `find_messages`: no more than was asked for, at a cost that does not grow."""
        short, long = _session_of(adapter, SHORT), _session_of(adapter, self.long_session)
        count = long.message_count
        assert count == self.long_session
        found = adapter.load(long.id, last_messages=50, turn_id=f"{long.id}:0")
        assert found is not None
        assert (found.session, found.turn is not None) == (long, True)
        assert [item.content for item in found.messages] == [str(n) for n in range(count - 49, count + 1)]
        self._check_pages(adapter, long)
        self._check_cost(adapter, short, long)
        assert adapter.delete_sessions([Target(long.id)]) == [long.id]
        assert adapter.find_messages(MessageQuery(session_id=long.id, limit=1)).items == []

    def _check_pages(self, adapter: PersistenceAdapter, long: SessionState) -> None:
        count, middle = long.message_count, long.message_count // 2
        query = MessageQuery(session_id=long.id, limit=3)
        around = adapter.find_messages(replace(query, after=middle)).items
        assert [item.sequence for item in around] == [middle + 1, middle + 2, middle + 3]
        newest = adapter.find_messages(replace(query, order="newest"))
        older = adapter.find_messages(replace(query, order="newest", cursor=newest.cursor))
        told = [item.sequence for page in (newest, older) for item in page.items]
        assert told == list(range(count, count - 6, -1))
        walked = pages(adapter.find_messages, replace(query, limit=MAX_PAGE))
        assert len(walked) == -(-count // MAX_PAGE)
        assert [item.sequence for page in walked for item in page] == list(range(1, count + 1))

    def _check_cost(self, adapter: PersistenceAdapter, short: SessionState, long: SessionState) -> None:
        # Times of one run compared with each other, the least of several, and with so much room that only
        # what grows with the session is found: at 5,000 messages it would be fifty times.
        def turn_of(session: SessionState) -> Callable[[], None]:
            def take() -> None:
                found = adapter.load(session.id, last_messages=50, turn_id=f"{session.id}:next")
                assert found is not None
                recommit(adapter, found.session, message(session.id))

            return take

        least = [min(_seconds(turn_of(session)) for _ in range(9)) for session in (short, long)]
        assert least[1] <= 10 * least[0] + 0.005


def _session_of(adapter: PersistenceAdapter, count: int) -> SessionState:
    session = new_session()
    for version, start in enumerate(range(0, count, 1000)):
        some = [message(session.id, str(n)) for n in range(start + 1, min(start + 1000, count) + 1)]
        record = turn(session.id, f"{session.id}:{version}")
        session = adapter.commit(session, some, expected_version=version, turn=record).session
    return session


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
