"""Turns as the original takes them, and its faults in taking them: what holds here. Each docstring names one.

Most of it is told by the tests of the engine's parts; docs/differences.md names them all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from inturn import Agent, Branch, Hooks, Route, Step, TurnContext, tool
from inturn.agent import ModelReply, ModelRequest, ScriptedProvider, ToolCall
from inturn.persistence import MemoryAdapter
from inturn.session import create_session
from inturn.session.state import SessionState
from tests.waiting import wait_until


class Trip(BaseModel):
    city: str | None = None
    day: str | None = None
    seat: str | None = None


CITY = Step("Where to?", collect=["city"])
DAY = Step("When?", collect=["day"])
HOURS = Route("Hours", steps=[Step("We are open all day.")])


def agent(replies: Any, *routes: Route, **options: Any) -> Agent:
    return Agent(
        "Travel",
        provider=ScriptedProvider(replies),
        schema=Trip,
        routes=routes or [Route("Trip", steps=[CITY, DAY])],
        **options,
    )


def requests(bot: Agent) -> list[ModelRequest]:
    provider = bot._definition.provider
    assert isinstance(provider, ScriptedProvider)
    return provider.requests


def state(bot: Agent) -> SessionState:
    session = bot.session.current
    assert session is not None
    return session


def wants(name: str) -> ModelReply:
    return ModelReply({}, tool_calls=(ToolCall("1", name, "{}"),))


class TestTheFirstTurn:
    def test_data_that_was_set_before_it_is_the_sessions(self) -> None:
        """The original staged it, until the first session consumed it."""
        store = MemoryAdapter()
        bot = agent([{"next_step": "day", "message": "When?"}], persistence=store)
        bot.session.set_data({"city": "Oslo"})
        before = bot.session.id

        response = bot.respond("hi")

        assert (response.session_id, response.step, response.data) == (before, "day", {"city": "Oslo"})
        assert [row["id"] for row in store.get_snapshot()["sessions"]] == [before]

    def test_with_two_routes_it_is_two_calls_and_the_next_is_one(self) -> None:
        """The original made three calls, and four on the next turn: it extracted twice."""
        bot = agent(
            [
                {"route": "trip"},
                {"city": "Oslo", "next_step": "day", "message": "When?"},
                {"day": "Monday", "next_step": "done", "message": "Have a good trip!"},
            ],
            Route("Trip", steps=[CITY, DAY]),
            HOURS,
        )

        assert [bot.respond(text).usage.calls for text in ("to Oslo", "on Monday")] == [2, 1]


class TestChoosingARoute:
    def test_where_code_has_closed_all_the_model_just_replies(self) -> None:
        """As in the original: nothing eligible is a plain reply."""
        bot = agent(["How can I help?"], Route("Trip", steps=[CITY], when=lambda turn: False))

        response = bot.respond("hi")

        assert (response.message, response.route, response.usage.calls) == ("How can I help?", None, 1)

    def test_all_functions_of_a_route_must_hold(self) -> None:
        """As in the original, where functions of `when` are joined by "and"."""
        route = Route("Trip", steps=[CITY], when=[lambda turn: True, lambda turn: "city" in turn.data])

        assert agent(["How can I help?"], route).respond("hi").route is None

    def test_words_of_a_route_that_code_has_closed_are_not_shown(self) -> None:
        """As in the original: code decides before the model does."""
        closed = Route("Trip", steps=[CITY], when=["the user wants to travel", lambda turn: False])
        bot = agent([{"route": "none"}, "Hello!"], closed, HOURS)

        bot.respond("hi")

        assert set(requests(bot)[0].choices) == {"hours"}
        assert "wants to travel" not in requests(bot)[0].instructions

    @pytest.mark.parametrize("named", ["nowhere", "trip", "", None, 5, ["hours"]])
    def test_a_change_to_no_other_route_is_no_change(self, named: Any) -> None:
        """The original has the model score routes; here it names one, and may name one that is not there."""
        bot = agent(
            [
                {"route": "trip"},
                {"message": "Where to?"},
                {"switch_route": named, "message": "Where to?"},
            ],
            Route("Trip", steps=[CITY]),
            HOURS,
        )
        bot.respond("a trip")

        assert bot.respond("well?").route == "trip"
        assert len(state(bot).route_history) == 1

    def test_a_route_whose_data_is_all_there_goes_to_its_last_step(self) -> None:
        """The original never offered such a route, and abandoned it before its last step."""
        route = Route("Trip", required_fields=["city"], steps=[CITY, Step("I book it.", id="book")])
        bot = agent([{"route": "trip"}, {"next_step": "book", "message": "I book it."}], route, HOURS)
        bot.session.set_data({"city": "Oslo"})

        response = bot.respond("book it")

        assert (response.route, response.step, response.is_route_complete) == ("trip", "book", True)

    def test_a_route_that_is_entered_is_not_noted_as_completed(self) -> None:
        """The original noted the route that it had just chosen, and not visited yet, as completed."""
        bot = agent(
            [
                {"route": "trip"},
                {"message": "Where to?"},
                {"switch_route": "seat", "message": "?"},
                {"message": "Which?"},
            ],
            Route("Trip", steps=[CITY]),
            Route("Seat", steps=[Step("Which seat?", collect=["seat"])]),
        )
        bot.respond("a trip")
        bot.respond("a seat")

        assert [(each.route_id, each.completed) for each in state(bot).route_history] == [
            ("trip", False),
            ("seat", False),
        ]


class TestWhatIsPending:
    def test_a_route_that_may_not_be_entered_is_not_entered(self) -> None:
        """In the original the target of what was pending was entered, without any choice of a route."""
        bot = agent(
            [{"route": "hours"}, "We are open all day.", "Hello!"],
            Route("Hours", steps=[Step("We are open all day.")], on_complete="trip"),
            Route("Trip", steps=[CITY], when=lambda turn: turn.user_id == "ann"),
        )
        assert bot.respond("when?").is_route_complete

        assert bot.respond("and now?").route is None

    @pytest.mark.parametrize("pending", [{"route": "gone"}, {"targetRouteId": "hours"}, {"route": None}, {}])
    def test_what_names_no_route_is_ignored(self, pending: dict[str, Any]) -> None:
        """As in the original, where an older version's pending transition was ignored."""
        store = MemoryAdapter()
        store.commit(create_session("s", pending=pending), expected_version=0)
        bot = agent(["Where to?"], persistence=store, session_id="s")

        assert bot.respond("hi").route == "trip"
        assert state(bot).pending is None

    @pytest.mark.parametrize(("day", "route"), [("Monday", "seat"), ("Sunday", None)])
    def test_code_decides_by_the_data_where_to_go_on(self, day: str, route: str | None) -> None:
        """As in the original's first version: `onComplete` may be a function."""

        def following(turn: TurnContext) -> str | None:
            return "seat" if turn.data["day"] == "Monday" else None

        bot = agent(
            [
                {"route": "trip"},
                {"day": day, "message": "Noted."},
                {"route": "none", "message": "Well?"},
                "Well?",
            ],
            Route("Trip", steps=[DAY], on_complete=following),
            Route("Seat", steps=[Step("Which seat?", collect=["seat"])]),
        )
        assert bot.respond(day).is_route_complete

        assert bot.respond("go on").route == route

    def test_a_tool_decides_where_to_go_on_though_its_route_ends(self) -> None:
        """The original dropped what was pending, to complete or to abort, at the end of a route."""

        @tool
        def choose_seat(turn: TurnContext) -> str:
            """Let the user choose a seat."""
            turn.go_to("seat")
            return "chosen"

        bot = agent(
            [
                {"route": "trip"},
                wants("choose_seat"),
                {"city": "Oslo", "next_step": "done", "message": "Noted."},
                {"message": "Which seat?"},
            ],
            Route("Trip", steps=[CITY]),
            Route("Seat", steps=[Step("Which seat?", collect=["seat"])]),
            tools=[choose_seat],
        )
        assert bot.respond("Oslo").is_route_complete

        assert bot.respond("well?").route == "seat"


class TestSteps:
    def test_any_function_of_skip_if_passes_the_step_over(self) -> None:
        """As in the original, where functions of `skipIf` are joined by "or"."""
        skipped = Step("Where to?", collect=["city"], skip_if=[lambda turn: False, lambda turn: True])

        assert agent(["When?"], Route("Trip", steps=[skipped, DAY])).respond("hi").step == "day"

    def test_a_route_whose_steps_are_all_passed_over_is_complete(self) -> None:
        """As in the original: it goes on behind a step that is skipped, and with none left it is complete."""
        steps = [Step(text, skip_if=lambda turn: True) for text in ("One.", "Two.", "Three.")]

        assert agent(["All done."], Route("Trip", steps=steps)).respond("hi").is_route_complete

    @pytest.mark.parametrize("nothing", [None, ""])
    def test_null_and_the_empty_text_are_no_values_anywhere(self, nothing: str | None) -> None:
        """In the original they were values to `requires`, and none to `requiredFields`."""
        route = Route(
            "Trip",
            required_fields=["city"],
            steps=[Step("Which seat?", collect=["seat"], requires=["city"]), CITY],
        )
        bot = agent(["Where to?"], route)
        bot.session.set_data({"city": nothing})

        assert bot.respond("hi").step == "city"

    def test_the_first_branch_that_holds_is_taken(self) -> None:
        """As in the original's second version."""
        always: Callable[[TurnContext], bool] = lambda turn: True  # noqa: E731
        never: Callable[[TurnContext], bool] = lambda turn: False  # noqa: E731
        first = Step(
            "Where to?",
            collect=["city"],
            branches=[Branch("day", when=never), Branch("seat", when=always), Branch("day", when=always)],
        )
        route = Route("Trip", steps=[first, DAY, Step("Which seat?", collect=["seat"])])

        assert agent([{"city": "Oslo", "message": "Which?"}], route).respond("Oslo").step == "seat"

    def test_a_steps_function_is_called_for_the_step_that_comes_and_not_for_the_last(self) -> None:
        """The original prepared the step that had been said before, not the one it was about to say."""
        called: list[str] = []
        steps = [
            Step("Where to?", collect=["city"], prepare=lambda turn: called.append("city")),
            Step("When?", collect=["day"], prepare=lambda turn: called.append("day")),
        ]
        bot = agent(["Where to?", {"city": "Oslo", "message": "?"}, "When?"], Route("Trip", steps=steps))
        bot.respond("hi")
        assert called == ["city"]

        bot.respond("Oslo")
        assert called[-1] == "day"


class TestCompletion:
    def test_the_last_reply_closes_the_route_in_the_same_call(self) -> None:
        """The original's first version made one more call for a farewell; the second said nothing at all."""
        bot = agent(
            [{"city": "Oslo", "next_step": "done", "message": "Oslo it is. Bye!"}],
            Route("Trip", steps=[CITY]),
        )

        response = bot.respond("Oslo")

        assert (response.message, response.is_route_complete) == ("Oslo it is. Bye!", True)
        assert response.usage.calls == 1
        assert [line.content for line in bot.session.get_history()] == ["Oslo", "Oslo it is. Bye!"]

    def test_an_error_while_closing_is_an_error(self) -> None:
        """The original thanked the user with a text of its own, whatever had gone wrong."""
        bot = agent([{"city": "Oslo", "message": " "}], Route("Trip", steps=[CITY]))

        with pytest.raises(Exception, match="no message"):
            bot.respond("Oslo")
        assert bot.session.get_data() == {}


class TestData:
    def test_a_field_that_no_step_of_the_route_asks_for_is_collected(self) -> None:
        """The original collected the fields of the route only."""
        bot = agent([{"seat": "aisle", "next_step": "city", "message": "Where to?"}])

        assert bot.respond("an aisle seat, please").data == {"seat": "aisle"}

    def test_data_that_the_application_sets_is_checked_and_calls_no_hook(self) -> None:
        """The original's `setData` called `onDataUpdate` too, and checked nothing but names."""
        called: list[Any] = []
        bot = agent([], hooks=Hooks(on_data_update=lambda new, old: called.append(new)))

        with pytest.raises(ValueError, match="city: Input should be a valid string"):
            bot.session.set_data({"city": 5})
        bot.session.set_data({"city": "Oslo"})

        assert (bot.session.get_data(), called) == ({"city": "Oslo"}, [])


class TestTools:
    def test_a_call_leaves_no_thread_and_no_timer_behind(self) -> None:
        """The original never cleared the timer of a tool's time limit."""

        @tool(timeout=3600)
        def look() -> str:
            """Look."""
            return "seen"

        bot = agent([wants("look"), "Seen."] * 20, HOURS, tools=[look])
        for _ in range(20):
            bot.respond("look")

        wait_until(lambda: not any(each.name == "tool look" for each in threading.enumerate()))


class TestPrompt:
    def test_it_has_glossary_knowledge_and_the_instructions_of_its_route(self) -> None:
        """As in the original."""
        route = Route("Trip", description="Sell a trip.", instructions="Never promise a seat.", steps=[CITY])
        bot = agent(
            [{"route": "trip"}, {"message": "Where to?"}],
            route,
            HOURS,
            instructions="Be kind.",
            glossary={"SBB": "the Swiss railways"},
            knowledge=["Trains to Oslo run daily."],
        )

        bot.respond("hi")

        choice, asked = (request.instructions for request in requests(bot))
        for words in ("Be kind.", "- SBB: the Swiss railways", "Trains to Oslo run daily.", "Sell a trip."):
            assert words in choice
            assert words in asked
        assert "Never promise a seat." in asked
        assert "Never promise a seat." not in choice

    def test_what_the_model_knows_may_hang_on_what_was_collected(self) -> None:
        """In the original conditions of instructions were never given the data, and never held."""

        def know(turn: TurnContext) -> list[str]:
            return ["No trains on Sunday."] if turn.data.get("city") == "Oslo" else []

        bot = agent([{"city": "Oslo", "next_step": "day", "message": "When?"}, "When?"], knowledge=know)
        bot.respond("Oslo")
        bot.respond("on Sunday")

        first, second = ([line.content for line in request.messages] for request in requests(bot))
        assert not any("No trains" in line for line in first)
        assert "Data that may help, not a message:\nNo trains on Sunday." in second


class TestHooks:
    def test_before_respond_is_called_without_a_context_too(self) -> None:
        """The original called it only if it was given a context."""
        seen: list[dict[str, Any]] = []
        bot = agent(
            ["Where to?"], hooks=Hooks(before_respond=lambda context: seen.append(context)), session_id="s"
        )

        bot.respond("hi", turn_id="t")

        assert seen == [{"session_id": "s", "user_id": None, "turn_id": "t"}]
