"""The kit on `find_sessions` and `find_messages`: what matches, in order, page by page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

import pytest

from inturn.persistence.adapter import MessageQuery, Page, PersistenceAdapter, SessionQuery
from inturn.session.state import SessionState
from inturn.testing.conformance.base import (
    Conformance,
    a_time_of_its_own,
    loaded,
    message,
    new_session,
    recommit,
    saved,
    unique,
)

T = TypeVar("T")
Q = TypeVar("Q", SessionQuery, MessageQuery)
Order = Literal["newest", "oldest"]
both_orders = pytest.mark.parametrize("order", ["newest", "oldest"])


def pages(find: Callable[[Q], Page[T]], query: Q) -> list[list[T]]:
    """All pages of a query."""
    found = []
    while True:
        page = find(query)
        found.append(page.items)
        if page.cursor is None:
            return found
        assert len(page.items) == query.limit
        query = replace(query, cursor=page.cursor)


def ids(states: list[SessionState]) -> list[str]:
    """Their IDs, in order."""
    return [state.id for state in states]


class ListingConformance(Conformance):
    """find_sessions and find_messages."""

    def test_sessions_are_found_by_each_field(self, adapter: PersistenceAdapter) -> None:
        """`SessionQuery`: every field given must match."""
        user, agent, other = unique("user"), unique("agent"), unique("user")
        first = saved(adapter, user_id=user, agent_name=agent)
        done = saved(adapter, user_id=user, agent_name=agent, status="completed")
        others = saved(adapter, user_id=other, agent_name=agent)
        nobodys = saved(adapter, agent_name=agent)

        def find(**fields: Any) -> set[str]:
            return set(ids(adapter.find_sessions(SessionQuery(**fields)).items))

        assert find(user_id=user) == {first.id, done.id}
        assert find(user_id=user, status="active") == {first.id}
        assert find(user_id=user, status="completed") == {done.id}
        assert find(user_id=user, status="abandoned") == set()
        assert find(agent_name=agent) == {first.id, done.id, others.id, nobodys.id}
        assert find(agent_name=agent, status="completed") == {done.id}
        assert find(agent_name=agent, user_id=other) == {others.id}
        assert find(user_id=unique()) == set()

    def test_what_is_found_is_what_is_loaded(self, adapter: PersistenceAdapter) -> None:
        """A listing gives whole sessions and whole messages."""
        session = saved(adapter, user_id=unique("user"), data={"a": [1]}, metadata={"b": None})
        full = message(session.id, tool_calls=[{"name": "x"}], event={"a": 1}, name="Ann", route="r")
        session = recommit(adapter, session, full).session
        found = loaded(adapter, session.id)
        assert adapter.find_sessions(SessionQuery(user_id=session.user_id)).items == [found.session]
        assert adapter.find_messages(MessageQuery(session_id=session.id)).items == found.messages

    def test_sessions_are_found_by_age(self, adapter: PersistenceAdapter) -> None:
        """`SessionQuery`: times compare with `updated_at`, exclusively."""
        agent, time = unique("agent"), a_time_of_its_own()
        tick = timedelta(microseconds=1)
        made = [saved(adapter, agent_name=agent, updated_at=time + n * tick).id for n in range(5)]

        def find(**fields: Any) -> list[str]:
            return ids(adapter.find_sessions(SessionQuery(agent_name=agent, order="oldest", **fields)).items)

        assert find(older_than=time + 2 * tick) == made[:2]
        assert find(newer_than=time + 2 * tick) == made[3:]
        assert find(newer_than=time, older_than=time + 4 * tick) == made[1:4]
        assert find(older_than=time) == []
        assert find(newer_than=time + 3 * tick, older_than=time + 4 * tick) == []

    def test_sessions_are_found_by_age_alone(self, adapter: PersistenceAdapter) -> None:
        """A query need not name a user: retention asks for everybody's."""
        time = a_time_of_its_own()
        session = saved(adapter, updated_at=time)
        around = SessionQuery(
            newer_than=time - timedelta(microseconds=1), older_than=time + timedelta(microseconds=1)
        )
        assert ids(adapter.find_sessions(around).items) == [session.id]

    @both_orders
    def test_sessions_come_by_their_last_change_then_by_id(
        self, adapter: PersistenceAdapter, order: Order
    ) -> None:
        """`find_sessions`: by `updated_at`, then ID, which compares by code point."""
        user, time, prefix = unique("user"), a_time_of_its_own(), unique()
        made = []
        for second, ending in [(0, "é"), (0, "Z"), (0, "a"), (0, "🙂"), (0, "\uffee"), (1, "B"), (2, "A")]:
            session = new_session(user_id=user, updated_at=time + timedelta(seconds=second))
            session.id = prefix + ending
            adapter.commit(session, expected_version=0)
            made.append((session.updated_at, session.id))
        found = adapter.find_sessions(SessionQuery(user_id=user, order=order)).items
        assert [(state.updated_at, state.id) for state in found] == sorted(made, reverse=order == "newest")

    @both_orders
    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 8, 1000])
    def test_pages_of_sessions_neither_skip_nor_repeat(
        self, adapter: PersistenceAdapter, order: Order, limit: int
    ) -> None:
        """`find_sessions`: the pages of a query are its whole list, whatever their size."""
        user, time = unique("user"), a_time_of_its_own()
        # Sessions of the same instant fall on both sides of a page's end.
        made = [saved(adapter, user_id=user, updated_at=time + timedelta(seconds=n // 3)) for n in range(7)]
        query = SessionQuery(user_id=user, order=order, limit=limit)
        found = pages(adapter.find_sessions, query)
        expected = sorted(made, key=lambda state: (state.updated_at, state.id), reverse=order == "newest")
        assert [state for page in found for state in page] == expected
        assert len(found) == -(-7 // limit)

    @both_orders
    def test_sessions_that_change_meanwhile_hide_no_others(
        self, adapter: PersistenceAdapter, order: Order
    ) -> None:
        """`find_sessions`: pages neither skip nor repeat an unchanged session."""
        user, time = unique("user"), a_time_of_its_own()
        made = [saved(adapter, user_id=user, updated_at=time + timedelta(seconds=n)) for n in range(9)]
        changing, unchanged = made[::2], ids(made[1::2])
        found: list[str] = []
        query = SessionQuery(user_id=user, order=order, limit=2)
        while True:
            page = adapter.find_sessions(query)
            found += ids(page.items)
            if page.cursor is None:
                break
            query = replace(query, cursor=page.cursor)
            if changing:
                touched = changing.pop().model_copy(update={"updated_at": time + timedelta(hours=1)})
                recommit(adapter, touched)
                saved(adapter, user_id=user, updated_at=time + timedelta(hours=1))
        ordered = unchanged if order == "oldest" else unchanged[::-1]
        assert [session_id for session_id in found if session_id in unchanged] == ordered

    @both_orders
    def test_messages_of_a_session_come_by_sequence(self, adapter: PersistenceAdapter, order: Order) -> None:
        """`MessageQuery`: `after` and `before` are sequences, both exclusive."""
        session = saved(adapter, 10)
        saved(adapter, 3)

        def find(**bounds: Any) -> list[int]:
            query = MessageQuery(session_id=session.id, order=order, **bounds)
            found = [item.sequence for item in adapter.find_messages(query).items]
            return found if order == "oldest" else found[::-1]

        assert find() == list(range(1, 11))
        assert find(after=7) == [8, 9, 10]
        assert find(before=3) == [1, 2]
        assert find(after=3, before=6) == [4, 5]
        assert find(after=5, before=5) == find(after=10) == find(before=1) == []
        assert find(after=-1, before=10**12) == list(range(1, 11))
        assert find(limit=3) == ([1, 2, 3] if order == "oldest" else [8, 9, 10])
        assert find(after=2, before=9, limit=2) == ([3, 4] if order == "oldest" else [7, 8])

    @both_orders
    @pytest.mark.parametrize(("after", "before"), [(None, None), (3, None), (None, 9), (2, 10)])
    @pytest.mark.parametrize("limit", [1, 3, 4, 11, 1000])
    def test_pages_of_messages_neither_skip_nor_repeat(
        self, adapter: PersistenceAdapter, order: Order, after: int | None, before: int | None, limit: int
    ) -> None:
        """`find_messages`: the pages of a query are its whole list, whatever their size."""
        session = saved(adapter, 11)
        query = MessageQuery(session_id=session.id, after=after, before=before, order=order, limit=limit)
        found = [item.sequence for page in pages(adapter.find_messages, query) for item in page]
        expected = list(range((after or 0) + 1, before or 12))
        assert found == (expected if order == "oldest" else expected[::-1])

    @both_orders
    def test_messages_that_come_meanwhile_disturb_no_pages(
        self, adapter: PersistenceAdapter, order: Order
    ) -> None:
        """`find_messages`: pages neither skip nor repeat while the session goes on."""
        session = saved(adapter, 5)
        query = MessageQuery(session_id=session.id, order=order, limit=2)
        found: list[int] = []
        for _ in range(3):
            page = adapter.find_messages(query)
            found += [item.sequence for item in page.items]
            session = recommit(adapter, session, message(session.id)).session
            assert page.cursor is not None or order == "newest"
            query = replace(query, cursor=page.cursor)
        assert found == ([1, 2, 3, 4, 5, 6] if order == "oldest" else [5, 4, 3, 2, 1])

    def test_an_unknown_session_has_no_messages(self, adapter: PersistenceAdapter) -> None:
        """`find_messages`: an empty page, not an error."""
        assert adapter.find_messages(MessageQuery(session_id=unique())) == Page([], None)
        assert adapter.find_messages(MessageQuery(user_id=unique())) == Page([], None)

    @both_orders
    @pytest.mark.parametrize("limit", [1, 2, 5, 1000])
    def test_messages_of_a_user_come_by_time_then_by_id(
        self, adapter: PersistenceAdapter, order: Order, limit: int
    ) -> None:
        """`MessageQuery`: of one user, over all sessions, ordered by time, then ID."""
        user, time = unique("user"), a_time_of_its_own()
        made = []
        for n in range(4):
            session = new_session()
            some = [
                message(session.id, user_id=user, created_at=time + timedelta(seconds=(n + m) % 3))
                for m in range(2)
            ]
            others = [message(session.id), message(session.id, user_id=unique("user"))]
            made += adapter.commit(session, [*some, *others], expected_version=0).messages[:2]
        query = MessageQuery(user_id=user, order=order, limit=limit)
        found = pages(adapter.find_messages, query)
        expected = sorted(made, key=lambda item: (item.created_at, item.id), reverse=order == "newest")
        assert [item for page in found for item in page] == expected
