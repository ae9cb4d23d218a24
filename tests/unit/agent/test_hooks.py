"""Hooks and context: the application's own code around a turn."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from inturn import Agent, Hooks, PersistenceManager, Response, Route, Step, TurnContext, tool
from inturn.agent import ModelReply, ScriptedProvider, ToolCall
from inturn.errors import AgentDefinitionError, InvalidInputError, ProviderUnavailableError
from tests.stores import TroubledStore


class Profile(BaseModel):
    name: str | None = None
    city: str | None = None


STEPS = [Step("Name?", collect=["name"]), Step("City?", collect=["city"])]


def agent(replies: Any, hooks: Hooks, **options: Any) -> Agent:
    return Agent(
        "Desk",
        provider=ScriptedProvider(replies),
        schema=Profile,
        routes=[Route("Profile", steps=STEPS)],
        hooks=hooks,
        **options,
    )


class TestContext:
    def test_before_respond_sees_and_makes_the_context(self) -> None:
        """As in the seed: fresh context from the store, found by the session's ID."""
        seen: list[dict[str, Any]] = []

        def before(context: dict[str, Any]) -> dict[str, Any]:
            seen.append(context)
            return {**context, "visits": context["visits"] + 1}

        bot = agent(
            ["a", "b"], Hooks(before_respond=before), context={"visits": 0}, session_id="s", user_id="u"
        )
        bot.respond("hi", turn_id="t1")
        bot.respond("hi", turn_id="t2")

        assert seen[0] == {"visits": 0, "session_id": "s", "user_id": "u", "turn_id": "t1"}
        assert (seen[1]["visits"], seen[1]["turn_id"]) == (1, "t2")
        assert bot.context["visits"] == 2

    def test_none_leaves_the_context_as_it_is(self) -> None:
        bot = agent(["a"], Hooks(before_respond=lambda context: None), context={"visits": 0})
        bot.respond("hi")

        assert bot.context["visits"] == 0

    def test_every_conversation_begins_with_the_agents_own_context(self) -> None:
        hooks = Hooks(before_respond=lambda context: {"visits": context["visits"] + 1})
        bot = agent(["a", "b"], hooks, context={"visits": 0})
        bot.bind("one").respond("hi")
        other = bot.bind("two")
        other.respond("hi")

        assert other.context["visits"] == 1

    def test_a_provider_adds_to_the_context_of_each_turn(self) -> None:
        asked: list[str] = []

        def provide(session_id: str) -> dict[str, Any]:
            asked.append(session_id)
            return {"plan": "gold"}

        seen: list[Any] = []
        hooks = Hooks(before_respond=lambda context: seen.append(context["plan"]))
        agent(["a"], hooks, context={"plan": "none"}, context_provider=provide, session_id="s").respond("hi")

        assert (asked, seen) == (["s"], ["gold"])

    def test_a_change_of_the_context_is_told_once_with_both(self) -> None:
        told: list[tuple[Any, Any]] = []

        @tool
        def upgrade(turn: TurnContext) -> str:
            """Upgrade the plan."""
            turn.update_context({"plan": "gold"})
            return "gold"

        hooks = Hooks(on_context_update=lambda new, old: told.append((new["plan"], old["plan"])))
        call = ModelReply({}, tool_calls=(ToolCall("1", "upgrade", "{}"),))
        agent([call, "Done."], hooks, context={"plan": "none"}, tools=[upgrade]).respond("upgrade me")

        assert told == [("gold", "none")]

    def test_a_turn_that_fails_leaves_the_context_as_it_was(self) -> None:
        hooks = Hooks(before_respond=lambda context: {"visits": context["visits"] + 1})
        bot = agent([ProviderUnavailableError(), "a"], hooks, context={"visits": 0})

        with pytest.raises(ProviderUnavailableError):
            bot.respond("hi")
        assert bot.context == {"visits": 0}
        bot.respond("hi")
        assert bot.context["visits"] == 1

    def test_saving_context_in_the_session_disturbs_not_the_turn(self) -> None:
        """The seed's recipe: on_context_update writes to the very session whose turn is running."""
        store = TroubledStore()
        manager = PersistenceManager(store)

        def save(new: dict[str, Any], previous: dict[str, Any]) -> None:
            manager.update_collected_data(new["session_id"], {"name": new["name"]})

        hooks = Hooks(before_respond=lambda context: {**context, "name": "Ann"}, on_context_update=save)
        bot = agent(
            [{"message": "hi"}, {"city": "Oslo", "message": "ok"}],
            Hooks(), persistence=store, session_id="s",
        )  # fmt: skip
        bot.respond("hi")
        bot = agent([{"city": "Oslo", "message": "ok"}], hooks, persistence=store, session_id="s")

        bot.respond("Oslo")

        found = store.load("s")
        assert found is not None
        assert found.session.data == {"name": "Ann", "city": "Oslo"}


class TestData:
    def test_a_change_of_the_data_is_told_once_with_both(self) -> None:
        told: list[tuple[Any, Any]] = []
        hooks = Hooks(on_data_update=lambda new, old: told.append((new, old)))
        bot = agent(
            [{"name": "Ann", "city": "Oslo", "message": "x"}, {"city": "Oslo", "message": "x"}], hooks
        )

        bot.respond("Ann from Oslo")
        bot.respond("Oslo, as I said")

        assert told == [({"name": "Ann", "city": "Oslo"}, {})]

    def test_what_the_hook_returns_is_the_data_and_decides_the_step(self) -> None:
        hooks = Hooks(on_data_update=lambda new, old: {**new, "city": "Oslo"})
        bot = agent([{"name": "ann", "next_step": "done", "message": "Welcome."}], hooks)

        response = bot.respond("ann")

        assert response.data == {"name": "ann", "city": "Oslo"}
        assert response.is_route_complete

    def test_a_route_that_begins_anew_tells_of_the_fields_that_it_empties(self) -> None:
        told: list[tuple[Any, Any]] = []
        bot = Agent(
            "Desk",
            provider=ScriptedProvider(
                [
                    {"route": "profile"},
                    {"name": "Ann", "next_step": "done", "message": "Hello."},
                    {"route": "profile"},
                    {"message": "Name?"},
                ]
            ),
            schema=Profile,
            routes=[Route("Profile", steps=STEPS[:1], reentrant=True)],
            hooks=Hooks(on_data_update=lambda new, old: told.append((new, old))),
        )
        bot.respond("Ann")
        bot.respond("somebody else")

        assert told == [({"name": "Ann"}, {}), ({}, {"name": "Ann"})]
        session = bot.session.current
        assert session is not None
        assert session.data_by_route == {"profile": {}}

    @pytest.mark.parametrize(
        ("returned", "says"),
        [
            ({"city": 5}, "city: Input should be a valid string"),
            ({"colour": "red"}, "'colour' is no field of the schema"),
            ("Oslo", "on_data_update must return the data, or None"),
        ],
    )
    def test_what_the_hook_returns_must_be_valid(self, returned: Any, says: str) -> None:
        bot = agent([{"name": "ann", "message": "x"}], Hooks(on_data_update=lambda new, old: returned))

        with pytest.raises(InvalidInputError, match=says):
            bot.respond("ann")
        assert bot.session.get_data() == {}


class TestAfter:
    def test_after_respond_is_called_when_the_turn_is_committed(self) -> None:
        store = TroubledStore()
        seen: list[tuple[str, int]] = []
        hooks = Hooks(after_respond=lambda response: seen.append((response.message, store.commits)))

        agent(["hello"], hooks, persistence=store).respond("hi")

        assert seen == [("hello", 1)]

    def test_it_is_not_called_again_for_a_turn_that_is_looked_up(self) -> None:
        seen: list[Response] = []
        bot = agent(["hello"], Hooks(after_respond=seen.append), session_id="s")

        first, again = bot.respond("hi", turn_id="t"), bot.respond("hi", turn_id="t")

        assert first == again
        assert len(seen) == 1

    def test_what_it_raises_does_not_undo_the_turn(self) -> None:
        def fail(response: Response) -> None:
            raise RuntimeError

        bot = agent(["hello"], Hooks(after_respond=fail))

        assert bot.respond("hi").message == "hello"

    def test_a_turn_taken_again_calls_the_others_again_and_the_session_has_it_once(self) -> None:
        store = TroubledStore()
        calls: list[str] = []
        hooks = Hooks(
            before_respond=lambda context: calls.append("before"),
            on_data_update=lambda new, old: calls.append("data"),
            after_respond=lambda response: calls.append("after"),
        )
        replies = [{"name": "Ann", "message": "City?"}] * 2
        store.failing = {"commit"}
        bot = agent(replies, hooks, persistence=store, session_id="s")
        with pytest.raises(Exception, match="database could not be reached"):
            bot.respond("Ann", turn_id="t")
        store.failing = set()

        response = bot.respond("Ann", turn_id="t")

        assert calls == ["before", "data", "before", "data", "after"]
        assert response.data == {"name": "Ann"}
        assert store.commits == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hooks": {"before_respond": print}}, "hooks of agent 'A' must be Hooks("),
        ({"context_provider": "gold"}, "context_provider of agent 'A' must be a function"),
        ({"max_tool_rounds": -1}, "max_tool_rounds of agent 'A' must be 0 or more"),
    ],
)
def test_a_mistake_is_named_with_its_mend(options: dict[str, Any], says: str) -> None:
    with pytest.raises(AgentDefinitionError) as caught:
        Agent("A", provider=ScriptedProvider([]), **options)
    assert says in str(caught.value)


def test_a_hook_must_be_a_function() -> None:
    with pytest.raises(AgentDefinitionError, match="the hook after_respond must be a function"):
        Hooks(after_respond="notify")  # type: ignore[arg-type]
