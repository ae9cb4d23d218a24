"""Sessions: one conversation each, loaded and saved without being asked to."""

from __future__ import annotations

from inturn import SessionManager, create_session, create_session_id
from inturn.persistence import MemoryAdapter, PersistenceManager


def test_a_session_is_made_with_an_id_of_its_own() -> None:
    """Nobody has to think of an ID."""
    session = SessionManager(MemoryAdapter()).get_or_create()

    assert session.id.startswith("session_")


def test_a_session_is_found_again_by_its_id() -> None:
    """What one process saved, another one loads."""
    store = MemoryAdapter()
    SessionManager(store, session_id="user-123").set_data({"name": "John"})

    elsewhere = SessionManager(store, session_id="user-123")

    assert elsewhere.get_data() == {"name": "John"}


def test_messages_are_saved_as_they_are_added() -> None:
    """There is no save() to forget."""
    store = MemoryAdapter()
    session = SessionManager(store, session_id="user-123")

    session.add_message("user", "Hello")
    session.add_message("assistant", "Hi there!")

    history = PersistenceManager(store).load_session_history("user-123")
    assert [(line.role, line.content) for line in history] == [("user", "Hello"), ("assistant", "Hi there!")]


def test_data_is_merged() -> None:
    """A patch names what changes; everything else stays."""
    session = SessionManager(MemoryAdapter())
    session.set_data({"guests": 2, "date": "Friday"})

    session.set_data({"date": "Saturday"})

    assert session.get_data() == {"guests": 2, "date": "Saturday"}


def test_history_can_be_set() -> None:
    """For conversations that began elsewhere."""
    session = SessionManager(MemoryAdapter())

    session.set_history([{"role": "user", "content": "Before"}, {"role": "assistant", "content": "Indeed"}])

    assert [line.content for line in session.get_history()] == ["Before", "Indeed"]


def test_history_can_be_cleared() -> None:
    """The conversation starts anew."""
    session = SessionManager(MemoryAdapter())
    session.add_message("user", "Hello")

    session.clear_history()

    assert session.get_history() == []


def test_a_session_is_reset_with_its_conversation() -> None:
    """A new ID, no data, and, if wished, the same conversation."""
    session = SessionManager(MemoryAdapter(), session_id="old")
    session.add_message("user", "Hello")
    session.set_data({"name": "John"})

    new = session.reset(preserve_history=True)

    assert session.id == new.id != "old"
    assert new.data == {}
    assert [line.content for line in session.get_history()] == ["Hello"]


def test_a_session_is_deleted() -> None:
    """In the store, with its messages, and in memory."""
    store = MemoryAdapter()
    session = SessionManager(store, session_id="user-123")
    session.add_message("user", "Hello")

    session.delete()

    assert session.current is None
    assert store.get_snapshot() == {"sessions": [], "messages": [], "turns": []}


def test_sessions_work_without_persistence() -> None:
    """They last as long as their manager."""
    session = SessionManager()
    session.add_message("user", "Hello")
    session.save()

    assert [line.content for line in session.get_history()] == ["Hello"]
    assert session.get_persistence_manager() is None


def test_a_turn_is_committed_as_a_whole() -> None:
    """State, messages and the turn's ID become visible in one step; the ID is known from then on."""
    from inturn.session import TurnRecord
    from inturn.session.state import create_message

    store = MemoryAdapter()
    session = SessionManager(store, session_id="s")

    assert session.load(turn_id="s:1") is None
    assert session.current is not None
    session.current.data["name"] = "John"
    session.commit(
        [create_message("s", "user", "I am John"), create_message("s", "assistant", "Hello John")],
        turn=TurnRecord(session_id="s", turn_id="s:1", result={"reply": "Hello John"}),
    )

    known = SessionManager(store, session_id="s").load(turn_id="s:1")
    assert known is not None
    assert known.result == {"reply": "Hello John"}


def test_a_session_can_be_made_by_hand() -> None:
    """Pre-populated, and saved when you say so."""
    persistence = PersistenceManager(MemoryAdapter())
    session = create_session(
        create_session_id(), data={"name": "John"}, history=[{"role": "user", "content": "Hello"}]
    )

    persistence.save_session_state(session.id, session)

    loaded = persistence.load_session_state(session.id)
    assert loaded is not None
    assert loaded.data == {"name": "John"}
    assert [line.content for line in loaded.history] == ["Hello"]
