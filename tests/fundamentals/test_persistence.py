"""Persistence: stored sessions and messages, whichever adapter keeps them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from inturn.persistence import MemoryAdapter, PersistenceManager


@pytest.fixture
def persistence() -> PersistenceManager:
    return PersistenceManager(MemoryAdapter())


def test_a_session_is_found_by_its_id(persistence: PersistenceManager) -> None:
    created = persistence.create_session(user_id="u", agent_name="Support", initial_data={"plan": "pro"})

    found = persistence.find_session_by_id(created.id)

    assert found is not None
    assert (found.user_id, found.agent_name, found.status, found.data) == (
        "u",
        "Support",
        "active",
        {"plan": "pro"},
    )


def test_the_active_session_of_a_user_is_the_one_used_last(persistence: PersistenceManager) -> None:
    persistence.create_session(id="first", user_id="u")
    persistence.create_session(id="second", user_id="u")
    persistence.update_collected_data("first", {"used": "again"})

    active = persistence.find_active_session_by_user_id("u")

    assert active is not None
    assert active.id == "first"


def test_the_sessions_of_a_user_are_listed_last_used_first(persistence: PersistenceManager) -> None:
    for name in ("one", "two", "three"):
        persistence.create_session(id=name, user_id="u")
    persistence.create_session(id="another", user_id="somebody else")

    found = persistence.find_sessions_by_user_id("u", limit=2)

    assert [session.id for session in found] == ["three", "two"]


def test_a_message_is_saved_by_hand(persistence: PersistenceManager) -> None:
    persistence.create_session(id="s", user_id="u")

    persistence.save_message(session_id="s", role="user", content="Hello!", route="booking", step="ask")

    (message,) = persistence.find_messages_by_session_id("s")
    assert (message.content, message.route, message.step, message.user_id) == (
        "Hello!",
        "booking",
        "ask",
        "u",
    )


def test_a_partial_update_merges(persistence: PersistenceManager) -> None:
    persistence.create_session(id="s", initial_data={"name": "John"})
    persistence.save_message(session_id="s", role="user", content="Hello!")

    persistence.update_collected_data("s", {"preferences": {"theme": "dark"}})

    session = persistence.load_session_state("s")
    assert session is not None
    assert session.data == {"name": "John", "preferences": {"theme": "dark"}}
    assert [line.content for line in session.history] == ["Hello!"]


def test_a_session_is_completed_or_abandoned(persistence: PersistenceManager) -> None:
    persistence.create_session(id="done")
    persistence.create_session(id="left")
    when = datetime(2026, 1, 2, tzinfo=UTC)

    persistence.update_session_status("done", "completed", when)
    persistence.update_session_status("left", "abandoned")

    done, left = persistence.find_session_by_id("done"), persistence.find_session_by_id("left")
    assert done is not None
    assert left is not None
    assert (done.status, done.completed_at) == ("completed", when)
    assert (left.status, left.completed_at) == ("abandoned", None)


def test_old_sessions_are_cleaned_up(persistence: PersistenceManager) -> None:
    """The seed's recipe, with a moment in place of its thirty days."""
    for name in ("old", "older", "open"):
        persistence.create_session(id=name, user_id="u")
    persistence.complete_session("old")
    persistence.complete_session("older")

    later = datetime.now(UTC) + timedelta(seconds=1)
    for session in persistence.find_sessions_by_user_id("u", status="completed", older_than=later):
        assert persistence.delete_session(session.id)

    assert [session.id for session in persistence.find_sessions_by_user_id("u")] == ["open"]


def test_a_health_check_asks_for_a_session_that_is_not_there() -> None:
    adapter = MemoryAdapter()

    assert adapter.session_repository.find_by_id("nonexistent") is None
    assert adapter.message_repository.find_by_session_id("nonexistent") == []


def test_a_turn_from_outside_is_taken_once(persistence: PersistenceManager) -> None:
    """`save_session` creates what is missing, merges the rest, and repeats nothing."""
    turn = {"data": {"paid": True}, "messages": [{"role": "system", "content": "Payment received"}]}

    first = persistence.save_turn("s", "s:payment-1", **turn)  # type: ignore[arg-type]
    again = persistence.save_turn("s", "s:payment-1", **turn)  # type: ignore[arg-type]

    assert again == first
    assert [line.content for line in persistence.load_session_history("s")] == ["Payment received"]
