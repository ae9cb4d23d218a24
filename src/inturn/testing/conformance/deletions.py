"""The kit on `delete_sessions`: all of a session goes, or nothing, and what is gone stays gone."""

from __future__ import annotations

import pytest

from inturn.errors import SessionConflictError
from inturn.persistence.adapter import MessageQuery, PersistenceAdapter, SessionQuery, Target
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


class DeletionConformance(Conformance):
    """delete_sessions."""

    def test_a_session_goes_with_its_messages_and_turns(self, adapter: PersistenceAdapter) -> None:
        """`delete_sessions`: delete sessions with their messages and turns; others stay."""
        user = unique("user")
        session, other = new_session(user_id=user), saved(adapter, 2)
        record = turn(session.id)
        some = [message(session.id, user_id=user) for _ in range(3)]
        adapter.commit(session, some, expected_version=0, turn=record)
        before = everything(adapter, other.id)
        assert adapter.delete_sessions([Target(session.id)]) == [session.id]
        assert everything(adapter, session.id) == (None, [])
        assert adapter.load(session.id, turn_id=record.turn_id) is None
        assert adapter.find_sessions(SessionQuery(user_id=user)).items == []
        assert adapter.find_messages(MessageQuery(user_id=user)).items == []
        assert everything(adapter, other.id) == before

    def test_the_ids_that_are_gone_by_this_call_are_returned(self, adapter: PersistenceAdapter) -> None:
        """`delete_sessions`: not those that were not there, and none twice."""
        first, second = saved(adapter), saved(adapter)
        targets = [Target(unique()), Target(second.id), Target(first.id), Target(second.id)]
        assert adapter.delete_sessions(targets) == [second.id, first.id]
        assert adapter.delete_sessions(targets) == []
        assert adapter.delete_sessions([]) == []

    def test_a_session_that_has_changed_is_left_alone(self, adapter: PersistenceAdapter) -> None:
        """`delete_sessions`: a target with a version is left alone if the session has changed since."""
        changed, same = saved(adapter, 1), saved(adapter, 1)
        recommit(adapter, changed, message(changed.id))
        before = everything(adapter, changed.id)
        targets = [Target(changed.id, changed.version), Target(same.id, same.version)]
        assert adapter.delete_sessions(targets) == [same.id]
        assert everything(adapter, changed.id) == before
        assert adapter.delete_sessions([Target(changed.id, 3)]) == []
        assert adapter.delete_sessions([Target(changed.id, 2)]) == [changed.id]

    def test_a_deleted_session_may_be_created_again(self, adapter: PersistenceAdapter) -> None:
        """Nothing of the old one is left: versions, sequences and turns begin anew."""
        session = new_session()
        record = turn(session.id, old=True)
        some = messages(session.id, 3)
        adapter.commit(session, some, expected_version=0, turn=record)
        adapter.delete_sessions([Target(session.id)])
        again = adapter.commit(
            session, some[:1], expected_version=0, turn=turn(session.id, record.turn_id, old=False)
        )
        assert not again.repeated
        assert (again.session.version, again.session.message_count) == (1, 1)
        found = loaded(adapter, session.id, record.turn_id)
        assert [item.sequence for item in found.messages] == [1]
        assert found.turn is not None
        assert found.turn.result == {"old": False}

    def test_a_running_turn_does_not_bring_a_deleted_session_back(self, adapter: PersistenceAdapter) -> None:
        """A session was deleted under a running turn: its late commit is a conflict with `None`."""
        session = saved(adapter, 1)
        adapter.delete_sessions([Target(session.id)])
        with pytest.raises(SessionConflictError) as conflict:
            adapter.commit(session, messages(session.id, 2), expected_version=1, turn=turn(session.id))
        assert (conflict.value.expected_version, conflict.value.actual_version) == (1, None)
        assert everything(adapter, session.id) == (None, [])

    def test_many_sessions_may_be_deleted_at_once(self, adapter: PersistenceAdapter) -> None:
        """Retention deletes in batches."""
        made = [saved(adapter, 1).id for _ in range(40)]
        strangers = [unique() for _ in range(1000)]
        targets = [Target(session_id) for session_id in (*strangers[:500], *made, *strangers[500:])]
        assert adapter.delete_sessions(targets) == made
