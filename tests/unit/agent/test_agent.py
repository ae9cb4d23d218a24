"""Agent: one commit per turn, or nothing at all; many threads, many conversations, one definition."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import BaseModel

from inturn import Agent, OfflineProvider, PersistenceManager, Route, Step
from inturn.agent import ModelRequest, ScriptedProvider
from inturn.contract import TurnFault, TurnResult
from inturn.errors import (
    InvalidInputError,
    ProviderError,
    ProviderUnavailableError,
    SessionConflictError,
    TurnFailedError,
)
from inturn.persistence import MemoryAdapter
from inturn.session.state import Message


class Order(BaseModel):
    """What an order needs."""

    item: str
    count: int | None = None


ROUTE = Route("Order", steps=[Step("What?", collect=["item"]), Step("How many?", collect=["count"])])


@pytest.fixture
def store() -> MemoryAdapter:
    return MemoryAdapter()


def agent(store: MemoryAdapter | PersistenceManager, replies: Any, **options: Any) -> Agent:
    return Agent(
        "Shop",
        provider=ScriptedProvider(replies),
        schema=Order,
        routes=[ROUTE],
        **{"persistence": store, "session_id": "s", **options},
    )


def asked(bot: Agent) -> list[ModelRequest]:
    provider = bot._definition.provider
    assert isinstance(provider, ScriptedProvider)
    return provider.requests


def rows(store: MemoryAdapter, session_id: str = "s") -> list[Message]:
    return PersistenceManager(store).find_messages_by_session_id(session_id)


# The commit


def test_a_turn_is_one_commit(store: MemoryAdapter) -> None:
    response = agent(store, [{"item": "tea", "message": "How many?"}]).respond("tea", turn_id="t")

    loaded = store.load("s", turn_id="t")
    assert loaded is not None
    assert loaded.session.version == 1
    assert loaded.session.agent_name == "Shop"
    assert loaded.turn is not None
    assert TurnResult.model_validate(loaded.turn.result).response == response


def test_both_messages_carry_turn_route_and_step(store: MemoryAdapter) -> None:
    bot = agent(store, [{"message": "What?"}, {"item": "tea", "message": "How many?"}], user_id="ann")
    bot.respond("hi")
    bot.respond("tea", turn_id="t")

    user, assistant = rows(store)[2:]
    assert (user.role, user.content, user.route, user.step) == ("user", "tea", "order", "item")
    assert (assistant.role, assistant.content, assistant.route, assistant.step) == (
        "assistant",
        "How many?",
        "order",
        "count",
    )
    assert {user.turn_id, assistant.turn_id} == {"t"}
    assert {user.user_id, assistant.user_id} == {"ann"}
    assert user.created_at <= assistant.created_at


def test_a_message_is_of_whoever_said_it_and_the_session_of_whoever_began_it(store: MemoryAdapter) -> None:
    agent(store, [{"message": "Hello."}], user_id="bob").respond("bob speaks")
    anns = agent(store, [{"message": "Hello, ann."}], user_id="ann")
    anns.respond("ann speaks", turn_id="t")
    anns.record_failure("ann again", TurnFault(type="X", message="x"), turn_id="t2")

    assert [(row.user_id, row.role) for row in rows(store)] == [
        ("bob", "user"),
        ("bob", "assistant"),
        ("ann", "user"),
        ("bob", "assistant"),
        ("ann", "user"),
        ("bob", "assistant"),
    ]


def test_metadata_is_kept_with_the_users_message(store: MemoryAdapter) -> None:
    agent(store, ["What?"]).respond("hi", metadata={"channel": "sms"})

    assert [row.event for row in rows(store)] == [{"metadata": {"channel": "sms"}}, None]


def test_turns_have_ids_of_their_own(store: MemoryAdapter) -> None:
    bot = agent(store, ["What?", "What?"])

    first, second = bot.respond("hi"), bot.respond("hi")

    assert first.turn_id != second.turn_id
    assert first.turn_id.startswith("s:")


def test_the_model_sees_the_conversation(store: MemoryAdapter) -> None:
    bot = agent(store, ["What?", "What?"])
    bot.respond("one")
    bot.respond("two")

    assert [line.content for line in asked(bot)[1].messages] == ["one", "What?", "two"]


def test_the_model_sees_no_more_than_the_window(store: MemoryAdapter) -> None:
    bot = agent(store, lambda request: "What?", history_window=2)
    for number in range(4):
        bot.respond(str(number))

    assert [line.content for line in asked(bot)[-1].messages] == ["2", "What?", "3"]


def test_a_wider_window_of_the_store_does_not_widen_that_of_the_model(store: MemoryAdapter) -> None:
    bot = agent(PersistenceManager(store), lambda request: "What?", history_window=1)
    bot.respond("one")
    bot.respond("two")

    assert [line.content for line in asked(bot)[-1].messages] == ["What?", "two"]


def test_a_window_of_nothing_is_nothing(store: MemoryAdapter) -> None:
    bot = agent(PersistenceManager(store), lambda request: "What?", history_window=0)
    bot.respond("one")
    bot.respond("two")

    assert [line.content for line in asked(bot)[-1].messages] == ["two"]


# Once per turn ID


def test_a_turn_that_another_agent_took_is_answered_from_the_store(store: MemoryAdapter) -> None:
    first = agent(store, [{"item": "tea", "message": "How many?"}]).respond("tea", turn_id="t")
    other = agent(store, [])

    assert other.respond("tea", turn_id="t") == first
    assert asked(other) == []
    assert len(rows(store)) == 2


def test_a_turn_that_somebody_else_commits_meanwhile_is_answered_from_the_store(
    store: MemoryAdapter,
) -> None:
    other = agent(store, ["First!"])
    late = agent(store, lambda request: other.respond("hi", turn_id="t").message + " late")

    assert late.respond("hi", turn_id="t").message == "First!"
    assert [row.content for row in rows(store)] == ["hi", "First!"]
    assert [line.content for line in late.session.get_history()] == ["hi", "First!"]


# Nothing is half done


@pytest.mark.parametrize("error", [ProviderUnavailableError("busy"), ProviderError("no"), RuntimeError("x")])
def test_after_an_error_everything_is_as_before(store: MemoryAdapter, error: Exception) -> None:
    bot = agent(store, [{"message": "What?"}, error, {"item": "tea", "message": "How many?"}])
    bot.respond("hi")
    before = bot.session.current
    assert before is not None
    before = before.model_copy(deep=True)

    with pytest.raises(type(error)):
        bot.respond("tea", turn_id="t")

    assert bot.session.current == before
    assert len(rows(store)) == 2
    assert bot.respond("tea", turn_id="t").data == {"item": "tea"}


def test_an_error_in_the_second_call_undoes_the_first(store: MemoryAdapter) -> None:
    bot = agent(store, [{"item": "tea", "next_step": "item", "message": "What?"}, ProviderError("no")])

    with pytest.raises(ProviderError):
        bot.respond("tea")

    assert bot.session.get_data() == {}
    assert store.load("s") is None


def test_an_error_of_a_condition_is_the_turns_error(store: MemoryAdapter) -> None:
    def broken(session: Any) -> bool:
        raise ZeroDivisionError

    bot = Agent(
        "Shop", provider=ScriptedProvider([]), routes=[Route("Order", when=broken)], persistence=store
    )

    with pytest.raises(ZeroDivisionError):
        bot.respond("hi")

    assert store.get_snapshot()["sessions"] == []


@pytest.mark.parametrize("message", [None, 5, b"hi", ["hi"], "a\x00b", "a\ud800"])
def test_a_message_that_is_no_text_is_refused_before_the_model_is_asked(
    store: MemoryAdapter, message: Any
) -> None:
    bot = agent(store, [])

    with pytest.raises(InvalidInputError):
        bot.respond(message)

    assert asked(bot) == []


@pytest.mark.parametrize("turn_id", [5, "", "a\x00b"])
def test_what_is_no_turn_id_is_refused_before_the_model_is_asked(store: MemoryAdapter, turn_id: Any) -> None:
    bot = agent(store, [], session_id=None)

    with pytest.raises(InvalidInputError):
        bot.respond("hi", turn_id=turn_id)

    assert asked(bot) == []


def test_metadata_that_is_no_json_is_refused_before_the_model_is_asked(store: MemoryAdapter) -> None:
    bot = agent(store, [])

    with pytest.raises(InvalidInputError, match="metadata"):
        bot.respond("hi", metadata={"x": float("nan")})

    assert asked(bot) == []


# Among other writers


def test_a_turn_is_taken_anew_when_somebody_else_wrote_a_message(store: MemoryAdapter) -> None:
    other = agent(store, ["What?"])

    def interrupted(request: ModelRequest) -> str:
        if len(request.messages) == 1:
            other.respond("me first")
        return f"seen {len(request.messages)}"

    assert agent(store, interrupted).respond("hi").message == "seen 3"
    assert [row.content for row in rows(store)] == ["me first", "What?", "hi", "seen 3"]


def test_a_turn_gives_way_after_three_tries(store: MemoryAdapter) -> None:
    other = agent(store, lambda request: "What?")

    def interrupted(request: ModelRequest) -> str:
        other.respond("me first")
        return "never"

    bot = agent(store, interrupted)

    with pytest.raises(SessionConflictError):
        bot.respond("hi")

    assert len(asked(bot)) == 3
    assert "hi" not in [row.content for row in rows(store)]


def test_a_change_of_the_data_meanwhile_costs_no_turn(store: MemoryAdapter) -> None:
    bot = agent(store, ["What?", "What?"])
    bot.respond("hi")
    manager = PersistenceManager(store)

    def answer(request: ModelRequest) -> str:
        manager.update_collected_data("s", {"count": 3})
        return "How many?"

    later = agent(store, answer)

    assert later.respond("tea").message == "How many?"
    assert later.session.get_data()["count"] == 3
    assert len(asked(later)) == 1


# Failure


FAULT = TurnFault(type="ProviderError", message="the model refused", attempts=5)


def test_a_failed_turn_leaves_a_trace_and_nothing_else(store: MemoryAdapter) -> None:
    bot = agent(store, [{"item": "tea", "message": "How many?"}], fallback_message="Sorry!")
    bot.respond("tea")

    response = bot.record_failure("two", FAULT, turn_id="t")

    assert (response.message, response.finish_reason) == ("Sorry!", "failed")
    assert response.data == {"item": "tea"}
    user, assistant = rows(store)[2:]
    assert (user.content, assistant.content) == ("two", "Sorry!")
    assert assistant.event == {"failed": "ProviderError"}
    loaded = store.load("s", turn_id="t")
    assert loaded is not None
    assert loaded.turn is not None
    result = TurnResult.model_validate(loaded.turn.result)
    assert (result.state, result.error) == ("failed", FAULT)
    assert loaded.session.current_step is not None
    assert loaded.session.current_step.id == "count"


def test_a_message_that_no_store_can_keep_does_not_keep_its_failure_from_being_recorded(
    store: MemoryAdapter,
) -> None:
    agent(store, []).record_failure("a\x00b\ud800", FAULT, turn_id="t")

    assert rows(store)[0].content == "ab\ufffd"


def test_a_failure_is_recorded_once(store: MemoryAdapter) -> None:
    bot = agent(store, [])

    first = bot.record_failure("hi", FAULT, turn_id="t")
    again = agent(store, []).record_failure("hi", FAULT, turn_id="t")

    assert again == first
    assert len(rows(store)) == 2


def test_a_turn_that_was_given_up_is_not_answered_later(store: MemoryAdapter) -> None:
    agent(store, []).record_failure("hi", FAULT, turn_id="t")

    with pytest.raises(TurnFailedError, match="the model refused") as caught:
        agent(store, ["late"]).respond("hi", turn_id="t")

    assert caught.value.turn_id == "t"


def test_a_turn_that_succeeded_cannot_be_recorded_as_failed(store: MemoryAdapter) -> None:
    bot = agent(store, [{"message": "What?"}])
    response = bot.respond("hi", turn_id="t")

    assert bot.record_failure("hi", FAULT, turn_id="t") == response


def test_the_session_goes_on_after_a_failed_turn(store: MemoryAdapter) -> None:
    bot = agent(store, [{"message": "What?"}, {"item": "tea", "message": "How many?"}])
    bot.respond("hi")
    bot.record_failure("...", FAULT, turn_id="t")

    assert bot.respond("tea").step == "count"


# Threads and conversations


def test_threads_of_one_conversation_wait_for_each_other(store: MemoryAdapter) -> None:
    running = threading.Semaphore(1)

    def answer(request: ModelRequest) -> str:
        assert running.acquire(blocking=False), "two turns of one conversation at a time"
        time.sleep(0.005)
        running.release()
        return "What?"

    bot = agent(store, answer)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: bot.respond(str(number)), range(16)))

    assert [row.role for row in rows(store)] == ["user", "assistant"] * 16


def test_one_definition_serves_many_threads_without_a_leak(store: MemoryAdapter) -> None:
    shared = Agent("Shop", provider=OfflineProvider(), schema=Order, routes=[ROUTE], persistence=store)

    def converse(number: int) -> None:
        for text in ("hello", f"item-{number}", str(number)):
            shared.bind(f"s{number}", user_id=f"u{number}").respond(text)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(converse, range(40)))

    for number in range(40):
        loaded = store.load(f"s{number}", last_messages=10)
        assert loaded is not None
        assert loaded.session.data == {"item": f"item-{number}", "count": number}
        assert loaded.session.user_id == f"u{number}"
        assert len(loaded.messages) == 6
    assert shared.session.id is None, "the shared definition itself holds no conversation"


def test_bound_agents_use_another_store_if_it_is_given(store: MemoryAdapter) -> None:
    other = MemoryAdapter()

    agent(store, ["What?"]).bind("x", persistence=other).respond("hi")

    assert store.load("x") is None
    assert other.load("x") is not None


def test_without_a_store_the_conversation_lives_in_the_agent() -> None:
    bot = Agent(
        "Shop",
        provider=ScriptedProvider([{"item": "tea", "message": "How many?"}]),
        schema=Order,
        routes=[ROUTE],
    )

    assert bot.respond("tea", turn_id="t") == bot.respond("tea", turn_id="t")
    assert bot.session.get_data() == {"item": "tea"}
    assert bot.bind("other").session.get_data() == {}


def test_without_auto_save_turns_wait_for_save(store: MemoryAdapter) -> None:
    bot = agent(store, ["What?", "What?"], auto_save=False)
    bot.respond("one")
    bot.respond("two")
    assert store.load("s") is None

    bot.session.save()

    assert [row.content for row in rows(store)] == ["one", "What?", "two", "What?"]


# The session's data


@pytest.mark.parametrize("patch", [{"count": "many"}, {"itme": "tea"}])
def test_data_that_does_not_fit_the_schema_is_refused(store: MemoryAdapter, patch: dict[str, Any]) -> None:
    bot = agent(store, [])

    with pytest.raises(InvalidInputError, match=next(iter(patch))):
        bot.session.set_data(patch)

    assert bot.session.get_data() == {}


def test_none_empties_a_field(store: MemoryAdapter) -> None:
    bot = agent(store, [{"message": "What?"}])
    bot.session.set_data({"item": "tea"})

    bot.session.set_data({"item": None})

    assert bot.respond("hi").step == "item"
