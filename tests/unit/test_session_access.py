"""Another's session, by each door of the library: it is neither read nor written, and what it holds not told.

The doors of the web API are in tests/integration/worker/test_web_access.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from inturn import Agent, PersistenceManager, TurnContext, tool
from inturn.agent import ModelReply, ScriptedProvider, ToolCall
from inturn.errors import (
    InvalidInputError,
    SessionAccessError,
    SessionConflictError,
    SessionError,
    SessionNotFoundError,
)
from inturn.persistence import MemoryAdapter, MessageRepository, SessionRepository
from inturn.session import SessionManager, create_session
from inturn.session.state import SessionState, create_message

SECRET = "what only bob may read"


@pytest.fixture
def store() -> MemoryAdapter:
    store = MemoryAdapter()
    for session_id, user_id in (("bobs", "bob"), ("nobodys", None)):
        session = create_session(session_id, user_id=user_id, data={"note": SECRET})
        store.commit(session, [create_message(session_id, "user", SECRET)], expected_version=0)
    return store


@pytest.fixture
def before(store: MemoryAdapter) -> Any:
    return store.get_snapshot()


@pytest.fixture
def anns(store: MemoryAdapter) -> PersistenceManager:
    return PersistenceManager(store, user_id="ann")


@pytest.fixture(params=["bobs", "nobodys"])
def session_id(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.mark.parametrize(
    "call",
    [
        lambda manager: manager.get_or_create(),
        lambda manager: manager.add_message("user", "hello"),
        lambda manager: manager.get_history(),
        lambda manager: manager.set_history([]),
        lambda manager: manager.clear_history(),
        lambda manager: manager.get_data(),
        lambda manager: manager.set_data({"note": "mine"}),
        lambda manager: manager.reset(),
        lambda manager: manager.load(),
    ],
    ids=[
        "get_or_create",
        "add_message",
        "get_history",
        "set_history",
        "clear_history",
        "get_data",
        "set_data",
        "reset",
        "load",
    ],
)
def test_a_session_manager_refuses_it(
    store: MemoryAdapter,
    before: Any,
    anns: PersistenceManager,
    session_id: str,
    call: Callable[[SessionManager], object],
) -> None:
    manager = SessionManager(anns, session_id=session_id, user_id="ann")

    with pytest.raises(SessionAccessError) as refused:
        call(manager)

    assert manager.current is None
    assert "bob" not in str(refused.value).replace(session_id, "")
    assert store.get_snapshot() == before


def test_a_session_manager_deletes_none(
    store: MemoryAdapter, before: Any, anns: PersistenceManager, session_id: str
) -> None:
    assert SessionManager(anns, session_id=session_id).delete() is False
    assert store.get_snapshot() == before


def test_a_session_manager_does_not_go_over_to_it(
    store: MemoryAdapter, anns: PersistenceManager, session_id: str
) -> None:
    manager = SessionManager(anns, session_id="anns", user_id="ann")
    manager.get_or_create()

    with pytest.raises(SessionAccessError):
        manager.get_or_create(session_id)


def test_an_agent_asks_no_model_about_it(
    store: MemoryAdapter, before: Any, anns: PersistenceManager, session_id: str
) -> None:
    provider = ScriptedProvider(["never asked"])
    agent = Agent("Desk", provider=provider, persistence=anns, session_id=session_id, user_id="ann")

    with pytest.raises(SessionAccessError):
        agent.respond("What did bob say?")
    with pytest.raises(SessionAccessError):
        list(agent.bind(session_id, user_id="ann").stream("What did bob say?"))

    assert provider.requests == []
    assert store.get_snapshot() == before


def test_a_tool_that_acts_for_its_user_reads_none(store: MemoryAdapter, session_id: str) -> None:
    @tool
    def look(turn: TurnContext, other: str) -> str:
        """Read another conversation."""
        reach = PersistenceManager(store, user_id=turn.user_id)
        found = [reach.find_session_by_id(other), *reach.find_messages_by_session_id(other)]
        reach.update_collected_data(other, {"note": "mine"})
        return f"found {found}"

    call = ModelReply({}, tool_calls=(ToolCall("1", "look", f'{{"other": "{session_id}"}}'),))
    provider = ScriptedProvider([call, "No."])
    agent = Agent(
        "Desk",
        provider=provider,
        persistence=PersistenceManager(store, user_id="ann"),
        session_id="anns",
        user_id="ann",
        tools=[look],
    )
    agent.respond("Look at the other one")

    assert SECRET not in str(provider.requests)
    found = store.load(session_id)
    assert found is not None
    assert found.session.data == {"note": SECRET}


def test_what_a_tool_is_handed_reaches_its_users_sessions_alone(
    store: MemoryAdapter, before: Any, session_id: str
) -> None:
    seen: dict[str, Any] = {}

    @tool
    def look(turn: TurnContext) -> str:
        """Read other conversations."""
        reach = turn.persistence
        seen["own"] = reach.find_session_by_id("anns-older")
        seen["others"] = [
            reach.find_session_by_id(session_id),
            *reach.find_messages_by_session_id(session_id),
            *reach.find_sessions_by_user_id("bob"),
            *reach.find_messages_by_user_id("bob"),
        ]
        for call in (
            lambda: reach.load(session_id),
            lambda: reach.save_turn(session_id, "t", data={"note": "mine"}),
            lambda: reach.create_session(user_id="bob"),
        ):
            with pytest.raises(SessionAccessError):
                call()
        with pytest.raises(SessionNotFoundError):
            reach.update_collected_data(session_id, {"note": "mine"})
        with pytest.raises(InvalidInputError):
            reach.acting_for("bob")
        with pytest.raises(SessionError):
            reach.get_adapter()
        assert reach.delete_session(session_id) is False
        seen["ended"] = True
        return "looked"

    PersistenceManager(store).create_session(id="anns-older", user_id="ann")
    provider = ScriptedProvider([ModelReply({}, tool_calls=(ToolCall("1", "look", "{}"),)), "No."])
    # As in a worker: the agent reaches everybody's sessions, and only the turn says whose it is.
    agent = Agent(
        "Desk",
        provider=provider,
        persistence=PersistenceManager(store),
        session_id="anns",
        user_id="ann",
        tools=[look],
    )
    agent.respond("Look at the other one")

    assert seen["own"].user_id == "ann"
    assert seen["others"] == [None]
    assert seen["ended"]
    kept = [row for row in store.get_snapshot()["sessions"] if not row["id"].startswith("anns")]
    assert kept == before["sessions"]


@pytest.mark.parametrize("stored", [True, False], ids=["nobody", "no store"])
def test_a_turn_of_nobody_and_an_agent_without_a_store_hand_out_none(
    store: MemoryAdapter, stored: bool
) -> None:
    def look(turn: TurnContext) -> str:
        with pytest.raises(SessionError, match="user_id" if stored else "in no store"):
            turn.persistence.find_session_by_id("bobs")
        return "nothing"

    provider = ScriptedProvider(["Hello."])
    persistence = PersistenceManager(store) if stored else None
    user_id = None if stored else "ann"
    agent = Agent("Desk", provider=provider, persistence=persistence, user_id=user_id, knowledge=look)

    assert agent.respond("Hello").message == "Hello."


class TestForgedStates:
    """A state says of itself whose it is; the store knows better."""

    def forged(self, store: MemoryAdapter, session_id: str) -> SessionState:
        found = store.load(session_id)
        assert found is not None
        return found.session.model_copy(update={"user_id": "ann", "data": {"note": "mine"}})

    def test_it_is_not_saved(
        self, store: MemoryAdapter, before: Any, anns: PersistenceManager, session_id: str
    ) -> None:
        forged = self.forged(store, session_id)

        with pytest.raises(SessionAccessError):
            anns.save_session_state(session_id, forged)
        with pytest.raises(SessionAccessError):
            anns.commit(forged, [create_message(session_id, "user", "hello")])

        assert store.get_snapshot() == before

    def test_as_a_new_one_it_meets_a_taken_id(
        self, store: MemoryAdapter, before: Any, anns: PersistenceManager, session_id: str
    ) -> None:
        with pytest.raises(SessionConflictError):
            anns.commit(create_session(session_id, user_id="ann"))

        assert store.get_snapshot() == before


class TestInAnothersName:
    """Nothing of one's own is put into another's lists either."""

    def test_no_session_is_created(self, store: MemoryAdapter, before: Any, anns: PersistenceManager) -> None:
        with pytest.raises(SessionAccessError):
            anns.create_session(user_id="bob")

        assert store.get_snapshot() == before

    def test_no_session_is_given_away(self, store: MemoryAdapter, anns: PersistenceManager) -> None:
        anns.create_session(id="anns")

        with pytest.raises(SessionAccessError):
            SessionRepository(store, user_id="ann").update("anns", {"user_id": "bob"})

        assert anns.find_session_by_id("anns") is not None

    def test_no_message_is_saved(self, store: MemoryAdapter, anns: PersistenceManager) -> None:
        anns.create_session(id="anns")

        with pytest.raises(SessionAccessError):
            anns.save_message(session_id="anns", role="user", content="I owe ann money", user_id="bob")

        assert MessageRepository(store).find_by_session_id("anns") == []
