"""OfflineProvider: fills fields by rules, says the step, and knows the request only."""

from __future__ import annotations

import datetime as dt
import enum
import time
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from inturn import Agent, Branch, Route, Step
from inturn.agent import ModelRequest, OfflineProvider
from inturn.agent.provider import PlannedStep
from inturn.agent.schema import Digest, Reply, Schema, choice_output
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
    return {name: data[name] for name in Form.model_fields if data[name] is not None}


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
    assert fill("two of us like tea", guests=None) == {"guests": 2}
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


def test_a_question_of_the_users_own_may_come_before_the_answer() -> None:
    plan = PLAN[1:]
    lines = [
        HistoryItem(role="assistant", content="Noted: guests 5. Your name?"),
        HistoryItem(role="user", content="When are you open?"),
        HistoryItem(role="assistant", content="From 9 to 6."),
        HistoryItem(role="user", content="ann"),
    ]

    assert ask("", messages=lines, plan=plan)["name"] == "ann"
    assert ask("", messages=lines[1:], plan=plan)["name"] is None


def test_it_says_why_a_value_will_not_do() -> None:
    answer = ask("0", plan=PLAN[:1], output=Reply, refused={"guests": "Input should be 1 or more"})

    assert answer["message"] == "Sorry, that does not work (guests: input should be 1 or more). How many?"


def test_it_sums_up_at_the_end() -> None:
    answer = ask(
        "half past seven", route="Form", asked=("arrival",), known={"guests": 4, "dog": True, "email": None}
    )

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


def test_an_answer_has_every_field_and_the_message_last() -> None:
    """As a model that is held to a schema writes it: a stream is told from the message on."""
    answer = ask("my name is Ann", plan=PLAN)

    assert list(answer) == list(FORM.model_fields)
    assert list(answer)[-1] == "message"
    assert [name for name, value in answer.items() if value is not None] == ["name", "next_step", "message"]


def test_a_reply_is_streamed_in_pieces() -> None:
    agent = Agent("Desk", provider=OfflineProvider(), schema=Form, routes=[Route("Form", steps=[NAME])])

    with agent.stream("hello") as stream:
        pieces = list(stream)

    assert "".join(piece.text for piece in pieces) == stream.response.message == NAME.prompt
    assert len(pieces) > 1
    assert [piece.restarts for piece in pieces] == [True, *[False] * (len(pieces) - 1)]


def test_it_sums_up_what_was_said() -> None:
    lines = (
        HistoryItem(role="user", content="I am Ann"),
        HistoryItem(role="assistant", content="Hello Ann"),
        HistoryItem(role="user", content="word " * 300),
    )

    summary = ask("", messages=lines, output=Digest)["summary"]

    assert summary.startswith("user: I am Ann / assistant: Hello Ann / user: word word")
    assert len(summary.split()) <= 200


NAME = Step("What is the name that all of this is to be kept under?", collect=["name"])
OTHERS = {
    "hours": "Opening hours. Tell when we are open or closed. Collects name, day.",
    "person": "Talk to a person. The guest wants to talk to a human.",
}


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("Are you open now?", "hours"),
        ("what are your opening hours", "hours"),
        ("I want to talk to a human", "person"),
        ("open or closed, that is the question", "hours"),
        ("we like the open air", None),  # one word, and no question
        ("which day?", None),  # what a route collects is not what it is about
        ("are you open on Friday?", None),  # states a day
        ("open up for 5 guests?", None),  # states a number
        ("are the tables in the open?", None),  # shares a word with the route it is in
        ("can I talk to a human about your hours?", "person"),
        ("is a human open?", None),  # shares as much with both
        ("how is the weather?", None),
        ("hello", None),
    ],
)
def test_it_goes_over_to_another_route_only_where_the_message_clearly_asks_for_it(
    text: str, route: str | None
) -> None:
    output = Schema(Form).output(["a", "b"], others=OTHERS)

    answer = ask(text, output=output, plan=PLAN, route="Tables", others=OTHERS, asked=("guests",))

    assert answer["switch_route"] == route


def test_what_states_a_value_that_is_known_asks_for_no_other_route() -> None:
    output = Schema(Form).output(["a", "b"], others=OTHERS)

    def route(text: str) -> Any:
        return ask(text, output=output, others=OTHERS, known={"day": "2026-10-02"})["switch_route"]

    assert route("are you open?") == "hours"
    assert route("are you open on Friday?") is None


def test_what_answers_the_question_asks_for_no_other_route() -> None:
    output = Schema(Form).output(["a", "b"], others=OTHERS)

    answer = ask("open hours, closed doors", output=output, others=OTHERS, asked=("notes",))

    assert (answer["notes"], answer["switch_route"]) == ("open hours, closed doors", None)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("I want a refund", True),
        ("Refunding it would be nice", True),
        ("no, I would like a refund", True),
        ("no refund, please", False),
        ("I don't want a refund", False),
        ("please do not give me any refund", False),
        ("no refund? yes, a refund!", True),
        ("the customer wants something", None),
        ("hello", None),
        ("👍", None),
    ],
)
def test_a_condition_holds_if_the_message_shares_a_telling_word_with_it(
    text: str, holds: bool | None
) -> None:
    conditions = {"a": "the user wants a refund", "b": "it rains"}
    output = Schema(Form).output(["a", "b"], conditions)

    assert ask(text, output=output, conditions=conditions)["decisions"] == {"a": holds, "b": None}


def test_long_hostile_messages_are_read_all_the_same() -> None:
    conditions = {"a": "the user wants a refund"}
    text = "not very " * 3500 + "refund"
    output = Schema(Form).output([], conditions, OTHERS)

    answer = ask(text, output=output, conditions=conditions, others=OTHERS)

    assert answer["decisions"] == {"a": False}


def test_a_condition_that_denies_holds_if_the_message_denies_too() -> None:
    conditions = {"a": "the user has no phone"}
    output = Schema(Form).output([], conditions)

    def decide(text: str) -> Any:
        return ask(text, output=output, conditions=conditions)["decisions"]["a"]

    assert decide("I never had a phone") is True
    assert decide("my phone is broken") is False


def test_a_branch_in_words_is_taken() -> None:
    route = Route(
        "Return",
        steps=[
            Step("What is it?", collect=["notes"], branches=[Branch("sorry", when="it is broken")]),
            Step("Do you have a dog?", collect=["dog"]),
            Step("Sorry to hear that!", id="sorry"),
        ],
    )
    agent = Agent("Desk", provider=OfflineProvider(), schema=Form, routes=[route])
    agent.respond("hello")

    assert agent.respond("A lamp, it came broken").message == "Sorry to hear that!"


def test_it_takes_its_time() -> None:
    began = time.monotonic()

    OfflineProvider(latency=0.05).generate(
        ModelRequest(instructions="", messages=(HistoryItem(role="user", content="hi"),), output=Reply)
    )

    assert time.monotonic() - began >= 0.05
