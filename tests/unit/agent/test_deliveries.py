"""A reply that is to be delivered is put into the session's outbox by the commit that ends its turn."""

from __future__ import annotations

from typing import Any

import pytest

from inturn.agent import Agent
from inturn.agent.scripted import ScriptedProvider
from inturn.contract import TurnFault
from inturn.errors import InvalidInputError, ProviderError, StoreUnavailableError
from inturn.persistence import Loaded
from inturn.session.state import Delivery, SessionState
from tests.stores import TroubledStore

FAULT = TurnFault(type="ProviderError", message="refused")


def delivery(**address: Any) -> Delivery:
    return Delivery(channel="pigeon", address=address or {"to": "me"})


@pytest.fixture
def store() -> TroubledStore:
    return TroubledStore()


def agent(store: TroubledStore, *replies: Any) -> Agent:
    return Agent("a", provider=ScriptedProvider(replies), persistence=store, session_id="s")


def stored(store: TroubledStore, turn_id: str = "t") -> Loaded:
    loaded = store.load("s", last_messages=10, turn_id=turn_id)
    assert loaded is not None
    return loaded


def test_it_is_stored_in_the_same_commit_as_the_reply(store: TroubledStore) -> None:
    agent(store, "Hello.").respond("Hi", turn_id="t", delivery=delivery())

    assert store.commits == 1
    found = stored(store)
    assert found.turn is not None
    [(turn_id, waiting)] = found.session.outbox.items()
    assert (turn_id, waiting.channel, waiting.address) == ("t", "pigeon", {"to": "me"})
    assert (waiting.state, waiting.sent, waiting.doubtful) == ("waiting", 0, False)


def test_a_streamed_reply_is_delivered_too_and_so_is_what_was_said_before_a_stop(
    store: TroubledStore,
) -> None:
    talking = agent(store, "Hello there, how are you?", "Another reply, which is stopped.")
    list(talking.stream("Hi", turn_id="t1", delivery=delivery()))
    with talking.stream("Hi", turn_id="t2", delivery=delivery()) as stream:
        next(stream)
        stream.stop()
        list(stream)

    assert list(stored(store).session.outbox) == ["t1", "t2"]
    assert stream.response.finish_reason == "interrupted"


def test_of_a_turn_that_was_given_up_the_fallback_message_is_delivered(store: TroubledStore) -> None:
    agent(store).record_failure("Hi", FAULT, turn_id="t", delivery=delivery())

    assert stored(store).session.outbox["t"].state == "waiting"


def test_an_empty_reply_is_not_delivered(store: TroubledStore) -> None:
    response = agent(store, "never asked for").respond(
        "Hi", turn_id="t", delivery=delivery(), stopped=lambda: True
    )

    assert response.message == ""
    assert stored(store).session.outbox == {}


def test_without_a_delivery_the_outbox_stays_as_it_is(store: TroubledStore) -> None:
    talking = agent(store, "One.", "Two.")
    talking.respond("Hi", turn_id="t1", delivery=delivery())
    talking.respond("Hi", turn_id="t2")

    assert list(stored(store).session.outbox) == ["t1"]


def test_a_turn_that_fails_leaves_none(store: TroubledStore) -> None:
    talking = agent(store, ProviderError("no"), "Hello.")
    with pytest.raises(ProviderError):
        talking.respond("Hi", turn_id="t", delivery=delivery())
    assert store.load("s") is None

    store.failing.add("commit")
    with pytest.raises(StoreUnavailableError):
        talking.respond("Hi", turn_id="t", delivery=delivery())
    store.failing.clear()
    assert talking.session.get_or_create().outbox == {}


def test_a_turn_that_was_committed_before_does_not_begin_its_delivery_anew(store: TroubledStore) -> None:
    agent(store, "Hello.").respond("Hi", turn_id="t", delivery=delivery())
    change(store, "t", state="sent", sent=1)

    agent(store, "never asked for").respond("Hi", turn_id="t", delivery=delivery())
    agent(store).record_failure("Hi", FAULT, turn_id="t", delivery=delivery())

    assert (stored(store).session.outbox["t"].state, store.commits) == ("sent", 2)


def test_a_delivery_that_goes_on_during_a_turn_and_the_turn_disturb_each_other_in_nothing(
    store: TroubledStore,
) -> None:
    talking = agent(store, "One.", "Two.")
    talking.respond("Hi", turn_id="t1", delivery=delivery())
    store.meanwhile.append(lambda: change(store, "t1", state="sending"))

    talking.respond("Hi", turn_id="t2", delivery=delivery())

    outbox = stored(store).session.outbox
    assert {turn_id: each.state for turn_id, each in outbox.items()} == {"t1": "sending", "t2": "waiting"}


def test_an_address_that_no_store_can_keep_is_refused_with_the_turn(store: TroubledStore) -> None:
    with pytest.raises(InvalidInputError):
        agent(store, "Hello.").respond("Hi", turn_id="t", delivery=delivery(to="a\x00b"))

    assert store.load("s") is None


def change(store: TroubledStore, turn_id: str, **changes: Any) -> SessionState:
    """What a worker that delivers does."""
    session = stored(store).session
    session.outbox[turn_id] = session.outbox[turn_id].model_copy(update=changes)
    return store.commit(session, expected_version=session.version).session
