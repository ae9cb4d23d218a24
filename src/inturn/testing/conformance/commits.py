"""The kit on `commit`: all of it or nothing, once, and over the version that was expected."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from inturn.errors import InvalidInputError, SessionConflictError
from inturn.ids import create_turn_id
from inturn.persistence.adapter import PersistenceAdapter, Recorded
from inturn.session.state import Message, utcnow
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


class CommitConformance(Conformance):
    """commit."""

    def test_versions_sequences_and_counts_grow(self, adapter: PersistenceAdapter) -> None:
        """`commit`: messages get the next sequences; `version` and `message_count` grow."""
        session = new_session()
        first = adapter.commit(session, messages(session.id, 2), expected_version=0)
        second = recommit(adapter, first.session)
        third = recommit(adapter, second.session, *messages(session.id, 3))
        states = [each.session for each in (first, second, third)]
        assert [state.version for state in states] == [1, 2, 3]
        assert [state.message_count for state in states] == [2, 2, 5]
        sequences = [[item.sequence for item in each.messages] for each in (first, second, third)]
        assert sequences == [[1, 2], [], [3, 4, 5]]
        found = loaded(adapter, session.id)
        assert found.session == third.session
        assert found.messages == [*first.messages, *third.messages]
        assert [item.content for item in found.messages] == ["1", "2", "1", "2", "3"]

    def test_many_messages_of_one_commit_keep_their_order(self, adapter: PersistenceAdapter) -> None:
        """`commit`: sequences in the order given, whatever the messages' IDs and times say."""
        session = new_session()
        now = utcnow()
        some = [message(session.id, str(n), created_at=now - timedelta(seconds=n)) for n in range(200)]
        adapter.commit(session, some[::-1], expected_version=0)
        found = loaded(adapter, session.id)
        assert [item.content for item in found.messages] == [str(n) for n in reversed(range(200))]
        assert found.session.last_message_at == now

    def test_times_are_those_of_the_commit(self, adapter: PersistenceAdapter) -> None:
        """`commit`: `updated_at` becomes now, `last_message_at` the last message's time."""
        old = datetime(2001, 1, 1, tzinfo=UTC)
        session = new_session(created_at=old, updated_at=old)
        before = utcnow()
        first = adapter.commit(
            session, [message(session.id), message(session.id, created_at=old)], expected_version=0
        ).session
        assert first.created_at == old
        assert before <= first.updated_at <= utcnow()
        assert first.last_message_at == old
        second = recommit(adapter, first).session
        assert (second.created_at, second.last_message_at) == (old, old)
        assert first.updated_at <= second.updated_at <= utcnow()
        assert loaded(adapter, session.id).session == second

    def test_updated_at_never_goes_back(self, adapter: PersistenceAdapter) -> None:
        """`commit`: not even where another machine's clock was ahead of ours."""
        ahead = utcnow() + timedelta(hours=1)
        session = adapter.commit(new_session(updated_at=ahead), expected_version=0).session
        assert session.updated_at == ahead
        assert recommit(adapter, session).session.updated_at == ahead
        assert loaded(adapter, session.id).session.updated_at == ahead

    def test_the_arguments_are_not_changed(self, adapter: PersistenceAdapter) -> None:
        """`commit`: the new state is in what is returned."""
        session = new_session(data={"a": [1]})
        some = messages(session.id, 2)
        record = turn(session.id)
        before = [item.model_copy(deep=True) for item in (session, *some, record)]
        adapter.commit(session, some, expected_version=0, turn=record)
        assert [session, *some, record] == before

    @pytest.mark.parametrize("expected", [1, 3, 99])
    def test_another_version_is_a_conflict_and_nothing_is_written(
        self, adapter: PersistenceAdapter, expected: int
    ) -> None:
        """`commit`: the store's version is another: `SessionConflictError`, and nothing is written."""
        session = recommit(adapter, saved(adapter, 1, data={"kept": True})).session
        before = everything(adapter, session.id)
        session.data = {"lost": True}
        record = turn(session.id)
        with pytest.raises(SessionConflictError) as conflict:
            adapter.commit(session, messages(session.id, 2), expected_version=expected, turn=record)
        assert (conflict.value.session_id, conflict.value.expected_version) == (session.id, expected)
        assert conflict.value.actual_version == 2
        assert everything(adapter, session.id) == before
        assert loaded(adapter, session.id, record.turn_id).turn is None

    @pytest.mark.parametrize("count", [0, 2])
    def test_creating_a_session_that_is_there_is_a_conflict(
        self, adapter: PersistenceAdapter, count: int
    ) -> None:
        """`commit`: 0 creates the session, and only creates."""
        session = saved(adapter, count, data={"kept": True})
        before = everything(adapter, session.id)
        again = new_session().model_copy(update={"id": session.id})
        with pytest.raises(SessionConflictError) as conflict:
            adapter.commit(again, messages(session.id, count), expected_version=0, turn=turn(session.id))
        assert (conflict.value.expected_version, conflict.value.actual_version) == (0, 1)
        assert everything(adapter, session.id) == before

    def test_changing_a_session_that_is_not_there_is_a_conflict(self, adapter: PersistenceAdapter) -> None:
        """`commit`: a session that is gone is never made anew by a late change."""
        session = new_session()
        with pytest.raises(SessionConflictError) as conflict:
            adapter.commit(session, messages(session.id, 1), expected_version=4, turn=turn(session.id))
        assert (conflict.value.expected_version, conflict.value.actual_version) == (4, None)
        assert everything(adapter, session.id) == (None, [])

    @pytest.mark.parametrize("expected", [0, 1, 2, 3])
    def test_a_turn_is_committed_once(self, adapter: PersistenceAdapter, expected: int) -> None:
        """`commit`: a turn that was committed before is answered from the store, whatever the version."""
        session = saved(adapter)
        record = turn(session.id, answer=1)
        done = adapter.commit(session, messages(session.id, 2), expected_version=1, turn=record).session
        before = everything(adapter, session.id)
        late = done.model_copy(update={"data": {"lost": True}, "message_count": 0 if expected == 0 else 2})
        again = adapter.commit(
            late,
            messages(session.id, 1),
            expected_version=expected,
            turn=turn(session.id, record.turn_id, answer=2),
        )
        assert again.repeated
        assert again.turn == record
        assert again.session == late
        assert again.messages == []
        assert everything(adapter, session.id) == before
        assert loaded(adapter, session.id, record.turn_id).turn == record

    def test_a_first_commit_is_not_a_repetition(self, adapter: PersistenceAdapter) -> None:
        """`Committed.repeated` tells that the turn was there already."""
        session = new_session()
        record = turn(session.id, answer=1)
        committed = adapter.commit(session, expected_version=0, turn=record)
        assert (committed.repeated, committed.turn) == (False, record)
        assert recommit(adapter, committed.session).turn is None

    def test_one_turn_id_in_two_sessions_is_two_turns(self, adapter: PersistenceAdapter) -> None:
        """A turn is known by its session and its ID."""
        sessions, turn_id = [new_session(), new_session()], unique("turn")
        for number, session in enumerate(sessions):
            record = turn(session.id, turn_id, number=number)
            assert not adapter.commit(session, expected_version=0, turn=record).repeated
        for number, session in enumerate(sessions):
            found = loaded(adapter, session.id, turn_id).turn
            assert found is not None
            assert found.result == {"number": number}

    def test_a_turn_that_met_a_conflict_may_be_committed_later(self, adapter: PersistenceAdapter) -> None:
        """A conflict remembers nothing of the turn."""
        session = recommit(adapter, saved(adapter)).session
        record = turn(session.id)
        with pytest.raises(SessionConflictError):
            adapter.commit(session, messages(session.id, 1), expected_version=1, turn=record)
        committed = adapter.commit(session, messages(session.id, 1), expected_version=2, turn=record)
        assert (committed.repeated, committed.session.message_count) == (False, 1)

    def test_long_turn_ids_are_told_apart(self, adapter: PersistenceAdapter) -> None:
        """A turn ID holds its session's ID percent-encoded, which makes it up to twelve times as long."""
        # Random, for what repeats itself is short to a store that compresses.
        letters = "".join(random.choices([chr(code) for code in range(0x4E00, 0x9FA5)], k=500))
        session = new_session()
        session.id = letters[:255]
        turn_ids = [create_turn_id(session.id, letters[-245:] + end) for end in "ab"]
        for version, turn_id in enumerate(turn_ids):
            record = turn(session.id, turn_id, version=version)
            session = adapter.commit(session, expected_version=version, turn=record).session
        for version, turn_id in enumerate(turn_ids):
            assert (
                loaded(adapter, session.id, turn_id).turn
                == adapter.commit(session, expected_version=0, turn=turn(session.id, turn_id)).turn
            )
            found = loaded(adapter, session.id, turn_id).turn
            assert found is not None
            assert (found.turn_id, found.result) == (turn_id, {"version": version})

    def test_which_turns_were_committed_is_told_at_once(self, adapter: PersistenceAdapter) -> None:
        """`recorded`: the version, and of many turns those that were committed for this session."""
        session, other = new_session(), saved(adapter)
        long_id = create_turn_id(session.id, "ж" * 245)
        for version, turn_id in enumerate(["a", "'b' \" %s", long_id]):
            session = adapter.commit(
                session, expected_version=version, turn=turn(session.id, turn_id)
            ).session
        recommit(adapter, session)
        adapter.commit(other, expected_version=1, turn=turn(other.id, "d"))
        assert adapter.recorded(session.id, ["d", "a", long_id, "'b' \" %s", "e"]) == Recorded(
            4, frozenset({"a", "'b' \" %s", long_id})
        )
        assert adapter.recorded(session.id, ["d"]) == Recorded(4, frozenset())
        assert adapter.recorded(unique(), ["a", "d"]) == Recorded(0, frozenset())

    def test_a_message_id_is_used_once(self, adapter: PersistenceAdapter) -> None:
        """`commit`: a message ID that is taken, in any session, raises, and nothing is written."""
        session, other = saved(adapter, 1), saved(adapter)
        taken = loaded(adapter, session.id).messages[0]
        twice = message(other.id)
        attempts: list[tuple[str, list[Message]]] = [
            (session.id, [message(session.id), taken]),
            (other.id, [taken.model_copy(update={"session_id": other.id})]),
            (other.id, [twice, twice]),
        ]
        for session_id, some in attempts:
            before = everything(adapter, session_id)
            state, record = loaded(adapter, session_id).session, turn(session_id)
            with pytest.raises(InvalidInputError):
                adapter.commit(state, some, expected_version=state.version, turn=record)
            assert everything(adapter, session_id) == before
            assert loaded(adapter, session_id, record.turn_id).turn is None
        adapter.commit(other, [twice], expected_version=1)

    def test_a_message_count_that_somebody_set_is_refused(self, adapter: PersistenceAdapter) -> None:
        """Sequences count a session's messages without gaps, so the count is the store's to change."""
        session = saved(adapter, 3)
        before = everything(adapter, session.id)
        for count in (0, 2, 4):
            wrong = session.model_copy(update={"message_count": count})
            with pytest.raises(InvalidInputError):
                recommit(adapter, wrong, message(session.id))
        assert everything(adapter, session.id) == before
        with pytest.raises(InvalidInputError):
            adapter.commit(new_session(message_count=1), expected_version=0)

    def test_what_belongs_to_another_session_is_refused(self, adapter: PersistenceAdapter) -> None:
        """Messages and turn must be the session's own."""
        session = new_session()
        with pytest.raises(InvalidInputError):
            adapter.commit(session, [message(session.id), message(unique())], expected_version=0)
        with pytest.raises(InvalidInputError):
            adapter.commit(session, expected_version=0, turn=turn(unique()))
        assert adapter.load(session.id) is None
