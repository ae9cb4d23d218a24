"""OfflineProvider: fills fields by rules, says the step, and knows the request only."""

from __future__ import annotations

import datetime as dt
import enum
import time
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from inturn.agent import ModelRequest, OfflineProvider
from inturn.agent.provider import PlannedStep
from inturn.agent.schema import Reply, Schema, choice_output
from inturn.session.state import HistoryItem


class Size(enum.Enum):
    small = "small"
    extra_large = "extra_large"


class Form(BaseModel):
    name: str = Field(description="Whose name it is under")
    guests: int = Field(ge=1, description="How many people will come")
    day: dt.date | None = None
    arrival: dt.time | None = None
    seating: Literal["inside", "outside", "no preference"] | None = None
    size: Size | None = None
    budget: Annotated[float, Field(gt=0)] = 1.0
    dog: bool = False
    email: str | None = None
    phone: str | None = None
    notes: str | None = None


FORM = Schema(Form).output(["a", "b"])
NOW = dt.datetime(2026, 10, 1, 12, tzinfo=dt.UTC)


def ask(text: str, **request: Any) -> dict[str, Any]:
    messages = (HistoryItem(role="user", content=text, timestamp=NOW),)
    return dict(
        OfflineProvider()
        .generate(ModelRequest(**{"instructions": "", "messages": messages, "output": FORM, **request}))
        .data
    )


def fill(text: str, *asked: str, **known: Any) -> dict[str, Any]:
    data = ask(text, asked=asked, known=known)
    return {name: value for name, value in data.items() if name in Form.model_fields}


@pytest.mark.parametrize(
    ("asked", "text", "value"),
    [
        ("guests", "5", 5),
        ("guests", "five", 5),
        ("guests", "There will be 4 of us", 4),
        ("guests", "2.5", 2.5),  # not an int: the agent refuses it and asks again
        ("budget", "49.50 euros", 49.5),
        ("dog", "yes please", True),
        ("dog", "no, we don't", False),
        ("day", "friday", "2026-10-02"),
        ("arrival", "8", "20:00:00"),
        ("arrival", "half past seven", "19:30:00"),
        ("seating", "Inside, please", "inside"),
        ("seating", "inside, we do not like it outside", "inside"),
        ("seating", "not outside, inside", "inside"),
        ("seating", "I don't mind", "no preference"),
        ("size", "extra large", "extra_large"),
        ("email", "it's ann@example.org", "ann@example.org"),
        ("phone", "555-0101", "555-0101"),
        ("name", "Ann", "Ann"),
        ("name", "It's under ann lee, please.", "ann lee"),
        ("notes", "A high chair, and we bring a dog", "A high chair, and we bring a dog"),
    ],
)
def test_an_answer_fills_the_field_that_was_asked_for(asked: str, text: str, value: Any) -> None:
    assert fill(text, asked) == {asked: value}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("guests", "lots"),
        ("guests", "not five"),
        ("day", "soon"),
        ("arrival", "late"),
        ("seating", "on the roof"),
        ("dog", "maybe"),
        ("phone", "no thanks"),
        ("name", "What time do you open?"),
        ("name", "ok, thanks!"),
        ("name", "well that is a long story that I had better not tell you now"),
        ("notes", "none"),
        ("notes", "👍"),
    ],
)
def test_what_is_no_answer_fills_nothing(asked: str, text: str) -> None:
    assert fill(text, asked) == {}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Oh and we are five", {"guests": 5}),
        ("we're 6, or 7 with the intern", {"guests": 6}),
        ("so that makes two of us", {"guests": 2}),
        ("4 people, my name is Ann", {"guests": 4, "name": "Ann"}),
        ("call me at 555-0101", {"phone": "555-0101"}),
        ("tomorrow at 7pm, outside", {"day": "2026-10-02", "arrival": "19:00:00", "seating": "outside"}),
        ("I will be 30 minutes late", {}),
        ("that one is nice", {}),
    ],
)
def test_typed_values_fill_their_fields_out_of_turn(text: str, values: dict[str, Any]) -> None:
    assert fill(text) == values


def test_the_rest_of_a_message_answers_what_was_asked() -> None:
    assert fill("ann lee, and we are five", "name") == {"name": "ann lee", "guests": 5}


def test_a_known_value_stays_unless_it_is_corrected() -> None:
    assert fill("two of us like tea", guests=4) == {}
    assert fill("actually make it six", guests=4) == {"guests": 6}
    assert fill("actually six", "arrival", guests=4) == {"guests": 6}
    assert fill("hm, inside then", seating="outside") == {"seating": "inside"}


PLAN = (PlannedStep("a", "How many?", ("guests",)), PlannedStep("b", "Your name?", ("name",)))


def test_it_says_the_first_step_that_the_message_leaves_open() -> None:
    assert ask("hi", plan=PLAN)["message"] == "How many?"
    answered = ask("five", plan=PLAN, asked=("guests",))
    assert (answered["next_step"], answered["message"]) == ("b", "Your name?")


def test_it_notes_what_was_said_out_of_turn() -> None:
    assert ask("my name is Ann", plan=PLAN, asked=("guests",))["message"] == "Noted: name Ann. How many?"


def test_it_says_that_it_did_not_get_an_answer() -> None:
    assert ask("lots", plan=PLAN, asked=("guests",))["message"] == "Sorry, I did not get that. How many?"


def test_it_says_why_a_value_will_not_do() -> None:
    answer = ask("0", plan=PLAN[:1], output=Reply, refused={"guests": "Input should be 1 or more"})

    assert answer["message"] == "Sorry, that does not work (guests: input should be 1 or more). How many?"


def test_it_sums_up_at_the_end() -> None:
    answer = ask("half past seven", route="Form", asked=("arrival",), known={"guests": 4, "dog": True})

    assert answer["next_step"] == "done"
    assert answer["message"] == "Thank you. I have: guests 4, dog yes, arrival 19:30."


def test_outside_of_all_routes_it_offers_help() -> None:
    before = HistoryItem(role="assistant", content="Done.")
    after = HistoryItem(role="user", content="thanks")

    assert ask("hi")["message"] == "How can I help you?"
    assert ask("", messages=(before, after))["message"] == "Can I do anything else for you?"


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("I'd like to book a table", "booking"),
        ("a reservation for two", "booking"),
        ("are you open on sundays?", "hours"),
        ("pity. then tuesday", "booking"),
        ("hello", "none"),
        ("👍", "none"),
    ],
)
def test_it_chooses_the_route_that_shares_words_with_the_message(text: str, route: str) -> None:
    choices = {
        "booking": "Book a table. Reserve. Collects name, date.",
        "hours": "Opening hours. When we are open.",
    }

    assert ask(text, choices=choices, output=choice_output(choices)) == {"route": route}


def test_it_takes_its_time() -> None:
    began = time.monotonic()

    OfflineProvider(latency=0.05).generate(
        ModelRequest(instructions="", messages=(HistoryItem(role="user", content="hi"),), output=Reply)
    )

    assert time.monotonic() - began >= 0.05
