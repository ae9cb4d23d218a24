"""One turn: the choice of a route, the steps, what is collected, what is asked of the model."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from inturn import Agent, Route, Step
from inturn.agent import ModelRequest, ScriptedProvider
from inturn.errors import ProviderError
from inturn.persistence import MemoryAdapter
from inturn.session.state import SessionState


class Trip(BaseModel):
    """What a trip needs."""

    city: str
    day: dt.date
    travellers: int = Field(ge=1, le=9)
    seat: Literal["aisle", "window"] | None = None
    notes: str | None = None

    @field_validator("city")
    @classmethod
    def _known(cls, city: str) -> str:
        if city == "Atlantis":
            raise ValueError("there are no trains to it")
        return city


CITY = Step("Where to?", collect=["city"])
DAY = Step("When?", collect=["day"])
TRAVELLERS = Step("How many?", collect=["travellers"])


def trip(*steps: Step, **options: Any) -> Route:
    return Route("Trip", steps=steps or (CITY, DAY), **options)


def agent(replies: Any, *routes: Route) -> Agent:
    return Agent("Travel", provider=ScriptedProvider(replies), schema=Trip, routes=routes or [trip()])


def requests(agent: Agent) -> list[ModelRequest]:
    provider = agent._definition.provider
    assert isinstance(provider, ScriptedProvider)
    return provider.requests


def state(agent: Agent) -> SessionState:
    session = agent.session.current
    assert session is not None
    return session


# Steps


def test_a_turn_that_goes_as_the_model_expects_is_one_call() -> None:
    bot = agent([{"next_step": "city", "message": "Where to?"}])

    response = bot.respond("hi")

    assert (response.message, response.route, response.step) == ("Where to?", "trip", "city")
    assert response.usage.calls == 1


def test_a_message_for_another_step_than_the_one_due_is_asked_for_again() -> None:
    bot = agent([{"city": "Oslo", "next_step": "city", "message": "Where to?"}, {"message": "When?"}])

    response = bot.respond("to Oslo")

    assert (response.message, response.step) == ("When?", "day")
    assert response.usage.calls == 2
    assert [step.id for step in requests(bot)[1].plan] == ["day"]


def test_a_reply_that_does_not_name_its_step_is_taken_as_it_is() -> None:
    bot = agent([{"city": "Oslo", "message": "And when?"}])

    assert bot.respond("to Oslo").message == "And when?"


def test_all_that_a_message_states_is_collected_at_once() -> None:
    bot = agent(
        [{"travellers": 2, "day": "2030-01-02", "next_step": "city", "message": "Where to?"}],
        trip(CITY, DAY, TRAVELLERS),
    )

    response = bot.respond("two of us, on 2 January 2030")

    assert response.data == {"travellers": 2, "day": "2030-01-02"}
    assert response.step == "city"


def test_steps_whose_data_is_there_are_passed_over() -> None:
    bot = agent([{"message": "How many?"}], trip(CITY, DAY, TRAVELLERS))
    bot.session.set_data({"city": "Oslo", "day": dt.date(2030, 1, 2)})

    assert bot.respond("hi").step == "travellers"


def test_skip_if_passes_a_step_over() -> None:
    bot = agent(
        [{"city": "Oslo", "message": "x"}],
        trip(
            CITY,
            Step("When?", collect=["day"], skip_if=lambda turn: turn.data.get("city") == "Oslo"),
            TRAVELLERS,
        ),
    )

    assert bot.respond("Oslo").step == "travellers"


def test_skip_if_does_not_keep_a_required_field_from_being_asked() -> None:
    bot = agent(
        [{"city": "Oslo", "message": "x"}],
        trip(
            CITY,
            Step("When?", collect=["day"], skip_if=lambda turn: True),
            required_fields=["city", "day"],
        ),
    )

    response = bot.respond("Oslo")

    assert (response.step, response.is_route_complete) == ("day", False)


def test_a_step_waits_for_the_fields_it_requires() -> None:
    bot = agent(
        [{"message": "How many?"}, {"travellers": 2, "message": "Aisle or window?"}],
        trip(Step("Aisle or window?", collect=["seat"], requires=["travellers"]), TRAVELLERS),
    )

    assert bot.respond("hi").step == "travellers"
    assert bot.respond("two").step == "seat"


def test_a_step_without_fields_is_said_once() -> None:
    bot = agent(
        [{"message": "Welcome!"}, {"message": "Where to?"}, {"message": "Where to?"}],
        trip(Step("Welcome!", id="welcome"), CITY),
    )

    assert [bot.respond("hi").step for _ in range(3)] == ["welcome", "city", "city"]


def test_an_optional_field_is_asked_once() -> None:
    bot = agent(
        [
            {"message": "Anything else?"},
            {"message": "Where to?"},
            {"city": "Oslo", "next_step": "done", "message": "Have a good trip!"},
        ],
        trip(Step("Anything else?", collect=["notes"]), CITY, optional_fields=["notes"]),
    )

    assert bot.respond("hi").step == "notes"
    assert bot.respond("no").step == "city"
    assert bot.respond("Oslo").is_route_complete


def test_a_last_question_waits_for_its_answer_even_if_it_is_optional() -> None:
    bot = agent(
        [{"city": "Oslo", "message": "Anything else?"}, {"next_step": "done", "message": "Bye!"}],
        trip(CITY, Step("Anything else?", collect=["notes"]), optional_fields=["notes"]),
    )

    assert not bot.respond("Oslo").is_route_complete
    assert bot.respond("no").is_route_complete


def test_an_optional_field_that_was_answered_wrongly_is_asked_again() -> None:
    bot = agent(
        [{"message": "Seat?"}, {"seat": "roof", "message": "Thanks!"}, {"message": "Aisle or window?"}],
        trip(Step("Seat?", collect=["seat"]), CITY, optional_fields=["seat"]),
    )
    bot.respond("hi")

    response = bot.respond("on the roof")

    assert (response.message, response.step) == ("Aisle or window?", "seat")


# Values


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"travellers": 12}, "less than or equal to 9"),
        ({"travellers": "many"}, "valid integer"),
        ({"day": "someday"}, "valid date"),
        ({"city": "Atlantis"}, "there are no trains to it"),
        ({"city": 5}, "valid string"),
        ({"seat": "roof"}, "'aisle' or 'window'"),
        ({"travellers": float("nan")}, "finite"),
    ],
)
def test_a_value_that_is_not_valid_is_never_stored_and_asked_again(said: dict[str, Any], reason: str) -> None:
    bot = agent([{**said, "next_step": "done", "message": "Fine!"}, {"message": "Once more, please?"}])

    response = bot.respond("...")

    assert response.message == "Once more, please?"
    assert response.data == {}
    (refused,) = requests(bot)[1].refused.values()
    assert reason in refused


def test_valid_values_beside_a_refused_one_are_kept() -> None:
    bot = agent([{"city": "Oslo", "travellers": 99, "message": "Fine!"}, {"message": "How many?"}])

    assert bot.respond("99 of us to Oslo").data == {"city": "Oslo"}


def test_null_and_blank_values_state_nothing() -> None:
    bot = agent([{"city": " ", "day": None, "nonsense": 1, "next_step": "city", "message": "Where to?"}])

    response = bot.respond("hi")

    assert (response.data, response.usage.calls) == ({}, 1)


def test_a_value_can_be_corrected() -> None:
    bot = agent([{"city": "Oslo", "message": "When?"}, {"city": "Rome", "message": "When?"}])
    bot.respond("Oslo")

    assert bot.respond("no, Rome").data == {"city": "Rome"}


def test_values_are_the_same_before_and_after_they_were_stored() -> None:
    bot = agent([{"day": "2030-01-02", "travellers": "3", "message": "Where to?"}])

    assert bot.respond("...").data == {"day": "2030-01-02", "travellers": 3}


@pytest.mark.parametrize(
    ("text", "kept"), [("a\x00b", "ab"), ("a\ud800b", "a\ufffdb"), ("\ud83d\ude00", "😀")]
)
def test_what_no_store_can_keep_is_taken_out_of_a_models_words(text: str, kept: str) -> None:
    bot = agent([{"city": text, "message": text}])

    response = bot.respond("hi")

    assert (response.message, response.data["city"]) == (kept, kept)
    assert bot.session.get_history()[-1].content == kept


@pytest.mark.parametrize("data", [{}, {"message": None}, {"message": 5}, {"message": "  "}])
def test_an_answer_without_a_message_is_an_error(data: dict[str, Any]) -> None:
    with pytest.raises(ProviderError, match="no message"):
        agent([data]).respond("hi")


# Completion


def test_a_route_is_complete_when_nothing_is_left() -> None:
    bot = agent(
        [{"city": "Oslo", "message": "When?"}, {"day": "2030-01-02", "next_step": "done", "message": "Done!"}]
    )
    bot.respond("Oslo")

    response = bot.respond("2 January 2030")

    assert (response.is_route_complete, response.route, response.step) == (True, "trip", None)
    assert state(bot).current_route is None
    (entry,) = state(bot).route_history
    assert entry.completed
    assert entry.exited_at is not None
    assert entry.exited_at >= entry.entered_at
    assert state(bot).data_by_route == {"trip": {"city": "Oslo", "day": "2030-01-02"}}


def test_a_route_ends_with_its_last_statement() -> None:
    bot = agent([{"message": "We are open all day."}], Route("Hours", steps=[Step("We are open all day.")]))

    assert bot.respond("hi").is_route_complete


def test_a_completed_route_is_not_entered_again() -> None:
    bot = agent([{"message": "We are open."}, "Goodbye!"], Route("Hours", steps=[Step("We are open.")]))
    bot.respond("hi")

    response = bot.respond("bye")

    assert (response.message, response.route) == ("Goodbye!", None)
    assert len(state(bot).route_history) == 1


@pytest.mark.parametrize("on_complete", ["trip", lambda turn: "trip"])
def test_a_completed_route_hands_over_to_the_next(on_complete: Any) -> None:
    bot = agent(
        [{"message": "Hi!"}, {"message": "Where to?"}],
        Route(
            "Greeting",
            steps=[Step("Hi!")],
            on_complete=on_complete,
            when=lambda turn: turn.session.version == 0,
        ),
        Route("Hours", steps=[Step("Open.")], when=lambda turn: turn.session.version > 0),
        trip(when=lambda turn: turn.session.version > 0),
    )

    assert bot.respond("hi").route == "greeting"
    assert bot.respond("ok").route == "trip"


def test_routes_share_the_data() -> None:
    bot = agent(
        [{"route": "first"}, {"city": "Oslo", "message": "Noted"}, {"route": "second"}, {"message": "When?"}],
        Route("First", steps=[CITY]),
        Route("Second", steps=[CITY, DAY]),
    )
    assert bot.respond("Oslo").is_route_complete

    assert bot.respond("and a return").step == "day"


# The choice of a route


def test_the_only_route_is_entered_without_asking() -> None:
    bot = agent([{"message": "Where to?"}])

    assert bot.respond("hi").route == "trip"


def test_the_model_chooses_where_several_routes_are_left() -> None:
    bot = agent([{"route": "hours"}, {"message": "Open."}], trip(), Route("Hours", steps=[Step("Open.")]))

    response = bot.respond("are you open?")

    assert (response.route, response.usage.calls) == ("hours", 2)
    assert set(requests(bot)[0].choices) == {"trip", "hours"}


def test_code_gates_before_the_model_is_asked() -> None:
    bot = agent(
        [{"message": "Open."}],
        trip(when=lambda turn: False),
        Route("Hours", steps=[Step("Open.")], when=lambda turn: True),
    )

    response = bot.respond("hi")

    assert (response.route, response.usage.calls) == ("hours", 1)


def test_a_route_that_code_closed_cannot_be_chosen_by_the_model() -> None:
    bot = agent(
        [{"route": "trip"}, "How can I help?"],
        trip(when=lambda turn: False),
        Route("Hours", steps=[Step("Open.")]),
    )

    assert bot.respond("hi").route is None


def test_no_route_fits_and_the_model_just_replies() -> None:
    bot = agent(
        [{"route": "none"}, {"travellers": 2, "message": "How can I help?"}],
        trip(),
        Route("Hours", steps=[Step("Open.")]),
    )

    response = bot.respond("hello, we are two")

    assert (response.message, response.route) == ("How can I help?", None)
    assert response.data == {"travellers": 2}, "what was stated is kept for the route that comes"


def test_the_last_route_of_several_is_not_forced_on_the_user() -> None:
    bot = agent(
        [{"route": "hours"}, {"message": "Open."}, {"route": "none"}, "Bye!"],
        trip(),
        Route("Hours", steps=[Step("Open.")]),
    )
    bot.respond("are you open?")

    assert bot.respond("thanks, bye").route is None


def test_a_condition_in_words_is_for_the_model() -> None:
    bot = agent([{"route": "none"}, "Hello!"], trip(when="the user wants to travel"))

    assert bot.respond("hi").route is None
    assert "the user wants to travel" in requests(bot)[0].instructions


def test_a_turn_stays_in_its_route() -> None:
    bot = agent(
        [{"route": "trip"}, {"message": "Where to?"}, {"message": "Where to?"}],
        trip(),
        Route("Hours", steps=[Step("Open.")]),
    )
    bot.respond("a trip")

    assert bot.respond("are you open?").route == "trip"


def test_a_turn_with_a_choice_asks_the_model_three_times_at_most() -> None:
    bot = agent(
        [
            {"route": "trip"},
            {"city": "Oslo", "next_step": "city", "message": "Where to?"},
            {"message": "When?"},
        ],
        trip(),
        Route("Hours", steps=[Step("Open.")]),
    )

    assert bot.respond("to Oslo").usage.calls == 3


def test_a_route_that_was_just_chosen_is_not_changed_in_the_same_turn() -> None:
    bot = agent(
        [
            {"route": "trip"},
            {"city": "Oslo", "switch_route": "hours", "next_step": "city", "message": "Where to?"},
            {"message": "When?"},
        ],
        trip(),
        Route("Hours", steps=[Step("Open.")]),
    )

    response = bot.respond("to Oslo")

    assert (response.route, response.step, response.usage.calls) == ("trip", "day", 3)


@pytest.mark.parametrize("routes", [[], [Route("New", steps=[DAY])]])
def test_a_route_that_a_newer_agent_no_longer_has_is_left(routes: list[Route]) -> None:
    store = MemoryAdapter()

    def version(*routes: Route) -> Agent:
        model = ScriptedProvider(["Where to?"])
        return Agent("Travel", provider=model, schema=Trip, routes=routes, persistence=store, session_id="s")

    version(Route("Old", steps=[CITY])).respond("hi")
    newer = version(*routes)

    assert newer.respond("hi").route == (routes[0].id if routes else None)
    session = state(newer)
    assert [entry.route_id for entry in session.route_history] == ["old", *(route.id for route in routes)]
    assert not session.route_history[0].completed
    assert session.route_history[0].exited_at is not None
    assert session.current_route is None or session.current_route.id == "new"
