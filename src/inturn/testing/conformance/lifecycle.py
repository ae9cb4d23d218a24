"""The kit on an adapter's life: initialize, close, ping, and what outlives them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from inturn.persistence.adapter import PersistenceAdapter
from inturn.testing.conformance.base import Conformance, Reopen, loaded, message, new_session, saved, turn


class LifecycleConformance(Conformance):
    """initialize, close and ping."""

    def test_initialize_may_be_repeated_and_keeps_what_is_stored(self, adapter: PersistenceAdapter) -> None:
        """`initialize`: create what the backend needs where it is missing; safe to repeat."""
        session = saved(adapter, 3)
        adapter.initialize()
        adapter.initialize()
        assert loaded(adapter, session.id).session == session

    def test_initialize_may_race(self, adapter: PersistenceAdapter, reopen: Reopen | None) -> None:
        """`initialize`: safe to race, as processes that start together do."""
        adapters = [reopen() if reopen is not None else adapter for _ in range(6)]
        try:
            with ThreadPoolExecutor(len(adapters)) as threads:
                list(threads.map(lambda each: each.initialize(), adapters))
        finally:
            for each in adapters:
                if each is not adapter:
                    each.close()

    def test_ping_returns_where_the_store_answers(self, adapter: PersistenceAdapter) -> None:
        """`ping`: return if the backend answers."""
        adapter.ping()

    def test_close_may_be_repeated(self, adapter: PersistenceAdapter, reopen: Reopen | None) -> None:
        """`close`: give back what the adapter itself opened; safe to repeat."""
        if reopen is None:
            pytest.skip("needs an adapter of its own to close, and there is no fixture `reopen`")
        unused, used = reopen(), reopen()
        used.ping()
        for each in (unused, used):
            each.close()
            each.close()
        adapter.ping()

    def test_what_was_committed_is_there_for_another_adapter(
        self, adapter: PersistenceAdapter, another: PersistenceAdapter
    ) -> None:
        """`durable`: what was committed is there for another process."""
        session = new_session(data={"city": "Lagos"})
        record = turn(session.id, answer=42)
        committed = adapter.commit(session, [message(session.id)], expected_version=0, turn=record)
        found = loaded(another, session.id, record.turn_id)
        assert (found.session, found.messages, found.turn) == committed[:3]

    def test_what_was_committed_is_there_after_a_restart(
        self, adapter: PersistenceAdapter, reopen: Reopen | None
    ) -> None:
        """`durable`: what was committed is there after the adapter that wrote it was closed."""
        if reopen is None:
            pytest.skip("needs an adapter of its own to close, and there is no fixture `reopen`")
        with reopen() as writer:
            session = saved(writer, 2)
        assert loaded(adapter, session.id).session == session
