"""The kit on `find_turns` and `rewrite`: other words in the same places, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest

from inturn.errors import InvalidInputError, StoreError
from inturn.persistence.adapter import PersistenceAdapter, Target
from inturn.persistence.rows import turn_key
from inturn.session.state import SessionState, TurnRecord
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
)


class RewritingConformance(Conformance):
    """find_turns and rewrite; skipped for stores whose `supports_rewriting` is False."""

    def test_turns_are_listed_in_pages(self, adapter: PersistenceAdapter) -> None:
        """`find_turns`: each turn of the session once, and none of another."""
        _needs_rewriting(adapter)
        session, other = new_session(), saved(adapter)
        recommit(adapter, other)
        expected = {}
        for version, name in enumerate(["b", "a", "ä", "a b", "x" * 600, "c", "B"]):
            record = turn(session.id, name, version=version)
            session = adapter.commit(session, expected_version=version, turn=record).session
            expected[turn_key(record.turn_id)] = record.result
        for limit in (1, 3, len(expected), 100):
            found: list[TurnRecord] = []
            cursor = None
            while not found or cursor is not None:
                page = adapter.find_turns(session.id, cursor=cursor, limit=limit)
                assert len(page.items) <= limit
                found += page.items
                cursor = page.cursor
            assert len(found) == len(expected)
            assert {record.turn_id: record.result for record in found} == expected
        assert adapter.find_turns(other.id).items == []
        assert adapter.find_turns(new_session().id).items == []

    def test_other_content_comes_in_the_same_places(self, adapter: PersistenceAdapter) -> None:
        """`rewrite`: content changes, and not a version, a time, a sequence or a count."""
        _needs_rewriting(adapter)
        session, others = _written(adapter)
        before, lines = everything(adapter, session.id)
        assert before is not None
        change = _Change(before.session, 2)
        new = [
            line.model_copy(
                update={"content": f"new {line.content}", "event": {"new": 1}, "tool_calls": None}
            )
            for line in lines[1:3]
        ]
        record = adapter.find_turns(session.id).items[0].model_copy(update={"result": {"new": True}})
        assert adapter.rewrite(change.session, new, [record]) == 4
        there, rewritten = everything(adapter, session.id)
        assert there is not None
        assert there.session == change.session
        assert rewritten == [lines[0], *new, lines[3]]
        assert loaded(adapter, session.id, record.turn_id).turn == record
        assert adapter.rewrite(change.session, new, [record]) == 4
        assert everything(adapter, session.id) == (there, rewritten)
        assert everything(adapter, others.id)[1][0].content == "1"

    def test_a_session_that_has_moved_on_keeps_what_it_has(self, adapter: PersistenceAdapter) -> None:
        """`rewrite`: of a session, if the store's has this version still."""
        _needs_rewriting(adapter)
        session, _ = _written(adapter)
        later = recommit(adapter, session.model_copy(update={"data": {"later": True}})).session
        assert adapter.rewrite(_Change(session, 2).session) == 0
        assert loaded(adapter, session.id).session == later

    def test_a_turn_that_runs_meanwhile_meets_no_conflict(self, adapter: PersistenceAdapter) -> None:
        """`rewrite`: whoever has loaded the session before may commit it after."""
        _needs_rewriting(adapter)
        session, _ = _written(adapter)
        assert adapter.rewrite(_Change(session, 2).session) == 1
        committed = recommit(adapter, session, message(session.id, "more")).session
        assert loaded(adapter, session.id).session == committed

    def test_what_is_gone_stays_gone(self, adapter: PersistenceAdapter) -> None:
        """`rewrite`: what is gone is left out."""
        _needs_rewriting(adapter)
        session, _ = _written(adapter)
        lines, record = loaded(adapter, session.id).messages, adapter.find_turns(session.id).items[0]
        stranger = lines[0].model_copy(update={"session_id": saved(adapter).id})
        assert adapter.rewrite(messages=[stranger]) == 0
        adapter.delete_sessions([Target(session.id)])
        assert adapter.rewrite(session, lines, [record]) == 0
        assert everything(adapter, session.id) == (None, [])
        assert adapter.find_turns(session.id).items == []

    def test_what_no_store_could_keep_is_not_rewritten(self, adapter: PersistenceAdapter) -> None:
        """`rewrite`: the same input is refused as by `commit`, and so is what is of two sessions."""
        _needs_rewriting(adapter)
        session, other = _written(adapter)
        before = everything(adapter, session.id)
        line = before[1][0]
        bad: list[dict[str, Any]] = [
            {"session": session.model_copy(update={"data": {"a": "\0"}})},
            {"messages": [line.model_copy(update={"content": "\0"})]},
            {"turns": [turn(session.id).model_copy(update={"result": {"a": float("nan")}})]},
            {"session": other, "messages": [line]},
        ]
        for arguments in bad:
            with pytest.raises(InvalidInputError):
                adapter.rewrite(**arguments)
        for limit in (0, 1001):
            with pytest.raises(InvalidInputError):
                adapter.find_turns(session.id, limit=limit)
        with pytest.raises(InvalidInputError):
            adapter.find_turns(session.id, cursor="nonsense")
        assert everything(adapter, session.id) == before

    def test_a_store_that_cannot_rewrite_says_so(self, adapter: PersistenceAdapter) -> None:
        """`supports_rewriting` tells."""
        if adapter.supports_rewriting:
            pytest.skip("supports_rewriting is True")
        with pytest.raises(StoreError):
            adapter.find_turns("session")
        with pytest.raises(StoreError):
            adapter.rewrite(saved(adapter))


class _Change:
    """A session with other content in all fields that `rewrite` may change."""

    def __init__(self, session: SessionState, number: int) -> None:
        self.session = session.model_copy(
            update={
                "data": {"number": number},
                "metadata": {"number": number},
                "pending": None,
                "journal": {"turn": {"number": number}},
            }
        )


def _written(adapter: PersistenceAdapter) -> tuple[SessionState, SessionState]:
    """A session with messages and turns, and another one."""
    session = new_session(data={"number": 1}, pending={"route": "a"}, metadata={"kept": False})
    first = turn(session.id, "a", number=1)
    session = adapter.commit(session, messages(session.id, 2), expected_version=0, turn=first).session
    more = [message(session.id, "3", name="Ada", tool_calls=[{"name": "t"}]), message(session.id, "4")]
    second = turn(session.id, "b", number=2)
    session = adapter.commit(session, more, expected_version=1, turn=second).session
    return session, saved(adapter, 1)


def _needs_rewriting(adapter: PersistenceAdapter) -> None:
    if not adapter.supports_rewriting:
        pytest.skip("needs supports_rewriting, which is False")
