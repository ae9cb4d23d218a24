"""The kit on races: many threads, on one adapter or two, and every commit all or nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from inturn.errors import SessionConflictError
from inturn.persistence.adapter import Committed, MessageQuery, PersistenceAdapter, Target
from inturn.session.state import SessionState
from inturn.testing.conformance.base import (
    Conformance,
    everything,
    loaded,
    message,
    messages,
    new_session,
    recommit,
    saved,
    turn,
    unique,
)

T = TypeVar("T")
Adapters = list[PersistenceAdapter]
WRITERS = 8
ROUNDS = 12


def at_once(
    adapters: Adapters, work: Callable[[PersistenceAdapter, int], T], count: int = WRITERS
) -> list[T]:
    """What `work(adapter, 0)`, `work(adapter, 1)`, ... return, each in its thread, started at one moment."""
    barrier = threading.Barrier(count)

    def start(number: int) -> T:
        barrier.wait(timeout=60)
        return work(adapters[number % len(adapters)], number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(start, range(count)))


class RaceConformance(Conformance):
    """Several writers and readers of one session."""

    @pytest.fixture(params=["one adapter", "two adapters"])
    def adapters(self, request: pytest.FixtureRequest, adapter: PersistenceAdapter) -> Adapters:
        """The adapters that the threads take by turns."""
        if request.param == "one adapter":
            return [adapter]
        return [adapter, request.getfixturevalue("another")]

    def test_one_writer_wins_each_version(self, adapters: Adapters) -> None:
        """`commit`: of several commits that expect one version, one is written; the others are conflicts."""
        session = saved(adapters[0])
        for _ in range(ROUNDS):
            session = self._won_by_one(adapters, session)
        assert (session.version, session.message_count) == (ROUNDS + 1, 2 * ROUNDS)

    def _won_by_one(self, adapters: Adapters, session: SessionState) -> SessionState:
        def write(adapter: PersistenceAdapter, number: int) -> Committed | SessionConflictError:
            mine = session.model_copy(update={"data": {"winner": number}})
            some = [message(session.id, str(number)), message(session.id, str(number))]
            try:
                return adapter.commit(mine, some, expected_version=session.version, turn=turn(session.id))
            except SessionConflictError as conflict:
                return conflict

        outcomes = at_once(adapters, write)
        winners = [each for each in outcomes if isinstance(each, Committed)]
        losers = [each for each in outcomes if isinstance(each, SessionConflictError)]
        assert (len(winners), len(losers)) == (1, WRITERS - 1)
        assert {loser.actual_version for loser in losers} == {session.version + 1}
        found = loaded(adapters[-1], session.id)
        assert found.session == winners[0].session
        assert found.messages[-2:] == winners[0].messages
        return found.session

    def test_one_writer_creates_a_session(self, adapters: Adapters) -> None:
        """`commit`: 0 creates the session, for one of several who try."""
        for _ in range(ROUNDS):
            self._created_by_one(adapters, new_session())

    def _created_by_one(self, adapters: Adapters, session: SessionState) -> None:
        def create(adapter: PersistenceAdapter, number: int) -> bool:
            mine = session.model_copy(update={"data": {"winner": number}})
            try:
                adapter.commit(mine, [message(mine.id, str(number))], expected_version=0)
            except SessionConflictError:
                return False
            return True

        outcomes = at_once(adapters, create)
        assert outcomes.count(True) == 1
        winner = outcomes.index(True)
        found = loaded(adapters[0], session.id)
        assert (found.session.version, found.session.data) == (1, {"winner": winner})
        assert [item.content for item in found.messages] == [str(winner)]

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_turn_is_committed_by_whoever_comes_first(self, adapters: Adapters, exists: bool) -> None:
        """`commit`: the same turn at the same time is answered from the store, and is no error."""
        for _ in range(ROUNDS):
            self._committed_by_one(adapters, saved(adapters[0]) if exists else new_session())

    def _committed_by_one(self, adapters: Adapters, session: SessionState) -> None:
        turn_id = unique("turn")

        def write(adapter: PersistenceAdapter, number: int) -> Committed:
            record = turn(session.id, turn_id, writer=number)
            some = [message(session.id, str(number))]
            return adapter.commit(session, some, expected_version=session.version, turn=record)

        outcomes = at_once(adapters, write)
        winners = [number for number, each in enumerate(outcomes) if not each.repeated]
        assert len(winners) == 1
        assert [each.turn and each.turn.result for each in outcomes] == [{"writer": winners[0]}] * WRITERS
        found = loaded(adapters[0], session.id)
        assert [item.content for item in found.messages] == [str(winners[0])]
        assert found.session.version == session.version + 1

    def test_nothing_is_lost_among_writers_that_repeat(self, adapters: Adapters) -> None:
        """A conflict tells to load and repeat; who does loses nothing, and overwrites nothing."""
        session_id = saved(adapters[0], data={"count": 0}).id

        def add(adapter: PersistenceAdapter, number: int) -> None:
            for step in range(ROUNDS):
                while True:
                    session = loaded(adapter, session_id).session
                    session.data["count"] += 1
                    try:
                        recommit(adapter, session, message(session_id, f"{number}/{step}"))
                    except SessionConflictError:
                        continue
                    break

        at_once(adapters, add, 4)
        found = loaded(adapters[0], session_id)
        assert found.session.data == {"count": 4 * ROUNDS}
        assert found.session.version == 4 * ROUNDS + 1
        assert [item.sequence for item in found.messages] == list(range(1, 4 * ROUNDS + 1))
        for number in range(4):
            mine = [item.content for item in found.messages if item.content.startswith(f"{number}/")]
            assert mine == [f"{number}/{step}" for step in range(ROUNDS)]

    def test_a_load_is_one_state(self, adapters: Adapters) -> None:
        """`load`: never the session of one commit with the messages, or the turn, of another."""
        session = saved(adapters[0], data={"last": 0})
        session_id = session.id
        done = threading.Event()

        def write() -> None:
            state = session
            try:
                for number in range(1, 101):
                    state.data["last"] = number
                    record = turn(session_id, f"{session_id}:{number}")
                    some = messages(session_id, 2)
                    state = (
                        adapters[0].commit(state, some, expected_version=state.version, turn=record).session
                    )
            finally:
                done.set()

        def read() -> None:
            upcoming = 1
            while not done.is_set():
                found = adapters[-1].load(session_id, last_messages=3, turn_id=f"{session_id}:{upcoming}")
                assert found is not None
                last, count = found.session.data["last"], found.session.message_count
                assert (count, found.session.version) == (2 * last, last + 1)
                sequences = [item.sequence for item in found.messages]
                assert sequences == list(range(max(1, count - 2), count + 1))
                assert (found.turn is not None) == (last >= upcoming)
                upcoming = last + 1

        with ThreadPoolExecutor(3) as threads:
            readers = [threads.submit(read) for _ in range(2)]
            threads.submit(write).result(timeout=120)
            for reader in readers:
                reader.result(timeout=60)

    def test_a_deletion_and_a_commit_never_leave_half_a_session(self, adapters: Adapters) -> None:
        """`delete_sessions`: all goes, and a commit that came too late brings nothing back."""
        for _ in range(ROUNDS):
            session = saved(adapters[0], 2)
            outcomes = at_once(adapters, self._delete_or_commit(session, Target(session.id)), 4)
            assert outcomes.count("deleted") == 1
            assert everything(adapters[0], session.id) == (None, [])

    def test_a_deletion_and_a_commit_exclude_each_other(self, adapters: Adapters) -> None:
        """`delete_sessions`: a target with a version is left alone if the session has changed since."""
        for _ in range(ROUNDS):
            session = saved(adapters[0], 2)
            outcomes = at_once(adapters, self._delete_or_commit(session, Target(session.id, 1)), 4)
            (outcome,) = filter(None, outcomes)
            left = adapters[0].find_messages(MessageQuery(session_id=session.id)).items
            assert (adapters[0].load(session.id) is None) == (outcome == "deleted")
            assert len(left) == (0 if outcome == "deleted" else 4)

    def _delete_or_commit(
        self, session: SessionState, target: Target
    ) -> Callable[[PersistenceAdapter, int], str | None]:
        def work(adapter: PersistenceAdapter, number: int) -> str | None:
            # The upper half, so that both kinds of work are on both adapters.
            if number >= 2:
                return "deleted" if adapter.delete_sessions([target]) else None
            try:
                adapter.commit(session, messages(session.id, 2), expected_version=1, turn=turn(session.id))
            except SessionConflictError:
                return None
            return "changed"

        return work
