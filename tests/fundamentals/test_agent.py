"""What an agent does, one idea at a time."""

from __future__ import annotations

import datetime as dt

from pydantic import BaseModel, Field

from inturn import Agent, OfflineProvider, Route, Step
from inturn.agent import ScriptedProvider, load_agent
from inturn.persistence import MemoryAdapter


class Order(BaseModel):
    """What a pizza order needs."""

    pizzas: int = Field(ge=1, le=10, description="How many pizzas")
    day: dt.date
    name: str


ORDER = Route(
    "Order pizza",
    required_fields=["pizzas", "day", "name"],
    steps=[
        Step("How many pizzas?", collect=["pizzas"]),
        Step("For which day?", collect=["day"]),
        Step("What is your name?", collect=["name"]),
    ],
)


def test_an_agent_asks_for_one_field_after_the_other() -> None:
    agent = Agent("Pizzeria", provider=OfflineProvider(), schema=Order, routes=[ORDER])

    assert agent.respond("hello").message == "How many pizzas?"
    assert agent.respond("three").message == "For which day?"
    assert agent.respond("2030-05-01").message == "What is your name?"
    assert agent.respond("Ann").is_route_complete
    assert agent.session.get_data() == {"pizzas": 3, "day": "2030-05-01", "name": "Ann"}


def test_an_answer_that_was_not_asked_for_fills_its_field_too() -> None:
    agent = Agent("Pizzeria", provider=OfflineProvider(), schema=Order, routes=[ORDER])
    agent.respond("hello")

    response = agent.respond("oh, and my name is Ann")

    assert response.data == {"name": "Ann"}
    assert response.step == "pizzas"


def test_what_is_known_is_not_asked_again() -> None:
    agent = Agent("Pizzeria", provider=OfflineProvider(), schema=Order, routes=[ORDER])

    assert agent.respond("three pizzas, on 2030-05-01").message.endswith("What is your name?")


def test_a_value_that_is_not_valid_is_asked_again_and_not_kept() -> None:
    agent = Agent("Pizzeria", provider=OfflineProvider(), schema=Order, routes=[ORDER])
    agent.respond("hello")

    response = agent.respond("fifty? no, 50!")

    assert response.message.endswith("How many pizzas?")
    assert response.data == {}


def test_a_conversation_goes_on_where_it_was_left() -> None:
    store = MemoryAdapter()
    first = Agent(
        "Pizzeria",
        provider=OfflineProvider(),
        schema=Order,
        routes=[ORDER],
        persistence=store,
        session_id="s",
    )
    first.respond("three pizzas please")

    later = Agent(
        "Pizzeria",
        provider=OfflineProvider(),
        schema=Order,
        routes=[ORDER],
        persistence=store,
        session_id="s",
    )

    assert later.respond("tomorrow").step == "name"
    assert [line.role for line in later.session.get_history()] == ["user", "assistant"] * 2


def test_one_definition_holds_many_conversations() -> None:
    agent = Agent(
        "Pizzeria", provider=OfflineProvider(), schema=Order, routes=[ORDER], persistence=MemoryAdapter()
    )

    agent.bind("ann").respond("three pizzas")
    agent.bind("bob").respond("five pizzas")

    assert agent.bind("ann").session.get_data() == {"pizzas": 3}
    assert agent.bind("bob").session.get_data() == {"pizzas": 5}


def test_the_same_turn_again_is_answered_without_the_model() -> None:
    model = ScriptedProvider(["Hello!"])
    agent = Agent("Host", provider=model, persistence=MemoryAdapter(), session_id="s")

    first = agent.respond("hi", turn_id="event-1")
    again = agent.respond("hi", turn_id="event-1")

    assert again == first
    assert len(model.requests) == 1


def test_an_agent_is_found_by_its_dotted_path() -> None:
    agent = load_agent("examples.booking:agent").bind("s")

    response = agent.respond("A table for four, tomorrow at 19:30, please")

    assert response.data["party_size"] == 4
    assert response.data["time"] == "19:30:00"
