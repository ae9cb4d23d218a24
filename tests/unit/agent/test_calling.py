"""Calling: which tools OfflineProvider calls, with what, and what it says of their results."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from inturn import Agent, OfflineProvider, Route, Step, TurnContext, tool
from inturn.agent import ModelReply, ModelRequest, Tool, ToolCall, ToolRound
from inturn.agent.provider import PlannedStep
from inturn.agent.schema import Reply, Schema
from inturn.session.state import HistoryItem

NOW = dt.datetime(2026, 10, 1, 12, tzinfo=dt.UTC)


class Size(enum.Enum):
    small = "small"
    large = "large"


class Form(BaseModel):
    guests: int
    day: dt.date
    name: str
    dog: bool


FORM = Schema(Form).output(["a"])
PLAIN = Schema(None).output()
"""What is asked for where an agent collects nothing."""


def generate(text: str, **request: Any) -> ModelReply:
    messages = (HistoryItem(role="user", content=text, timestamp=NOW),)
    given = {"instructions": "", "messages": messages, "output": FORM, **request}
    return OfflineProvider().generate(ModelRequest(**given))


@tool
def free_tables(day: dt.date, guests: int = 2) -> str:
    """Look for tables that are free."""
    return f"There are tables for {guests}."


@tool
def find_parcel(parcel_id: str, express: bool = False) -> dict[str, Any]:
    """Tell where a parcel is."""
    return {"parcel_id": parcel_id, "at": {"city": "Oslo", "since": None}, "signed": False}


@tool
def stop_parcel(parcel_id: str) -> str:
    """Hold the delivery of a parcel back, and send it home."""
    return "stopped"


@tool
def convert(amount: float, currency: Literal["euros", "dollars"]) -> float:
    """Convert money."""
    return amount * 2


@tool
def list_vouchers() -> list[str]:
    """Show which vouchers there are for you to spend."""
    return []


def calls(text: str, *tools: Tool, **request: Any) -> list[tuple[str, str]]:
    reply = generate(text, tools=tuple(each.spec for each in tools), **request)
    return [(call.name, call.arguments) for call in reply.tool_calls]


def test_a_tool_is_called_once_its_arguments_are_known_and_the_message_told_one() -> None:
    assert calls("on Friday", free_tables) == [("free_tables", '{"day": "2026-10-02"}')]
    assert calls("we are five", free_tables, known={"day": "2026-10-02"}) == [
        ("free_tables", '{"day": "2026-10-02", "guests": 5}')
    ]
    assert calls("we are five", free_tables) == []
    assert calls("thanks", free_tables, known={"day": "2026-10-02", "guests": 5}) == []


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("where is A-1001?", '{"parcel_id": "A-1001"}'),
        ("where is #17?", '{"parcel_id": "17"}'),
        ("it is 20394", '{"parcel_id": "20394"}'),
        ("and this one: XY99", '{"parcel_id": "XY99"}'),
        ("where is it? I paid 20 euros", None),
        ("since 2026-09-30!", None),
        ("call 555-0101", None),
    ],
)
def test_an_argument_that_is_no_field_is_read_out_of_the_message(text: str, arguments: str | None) -> None:
    expected = [("find_parcel", arguments)] if arguments else []

    assert calls(text, find_parcel, output=PLAIN) == expected


def test_of_several_tools_the_one_that_the_message_is_about_is_called() -> None:
    def called(text: str) -> list[str]:
        return [name for name, _ in calls(text, stop_parcel, find_parcel, output=PLAIN)]

    assert called("please stop the delivery of parcel A-1001") == ["stop_parcel"]
    assert called("can you find A-1001") == ["find_parcel"]
    assert called("A-1001") == ["find_parcel"]  # the last one, so that a step's comes before its agent's
    assert called("the parcel A-1001") == ["find_parcel"]  # both are about parcels: that tells nothing
    assert called("find and stop A-1001") == ["stop_parcel", "find_parcel"]
    assert called("please stop it") == []


def test_another_code_takes_the_place_of_the_one_that_is_known() -> None:
    class Shipment(BaseModel):
        parcel_id: str

    def called(text: str) -> list[tuple[str, str]]:
        return calls(text, find_parcel, output=Schema(Shipment).output(), known={"parcel_id": "A-1001"})

    assert called("and where is A-1002?") == [("find_parcel", '{"parcel_id": "A-1002"}')]
    assert called("and where is that?") == []


def test_an_argument_may_be_one_of_an_enum() -> None:
    @tool
    def find_box(size: Size | None) -> None:
        """Find a box."""

    assert calls("a large one", find_box) == [("find_box", '{"size": "large"}')]


def test_any_number_will_do_for_a_tool_that_the_message_is_about() -> None:
    assert calls("convert 12.50 to euros", convert, output=PLAIN) == [
        ("convert", '{"amount": 12.5, "currency": "euros"}')
    ]
    assert calls("12.50 in euros", convert, output=PLAIN) == []


def test_a_tool_without_arguments_is_called_where_the_message_is_about_it() -> None:
    assert calls("which vouchers do I have?", list_vouchers) == [("list_vouchers", "{}")]
    assert calls("I spend a lot", list_vouchers) == []


def test_a_value_that_a_tool_does_not_take_is_not_given_to_it() -> None:
    @tool
    def lay_table(guests: Annotated[int, Field(ge=1, le=8)], dog: Literal[True]) -> None:
        """Lay the table."""

    assert calls("we are five", lay_table, known={"dog": True}) == [
        ("lay_table", '{"guests": 5, "dog": true}')
    ]
    assert calls("we are nine", lay_table, known={"dog": True}) == []
    assert calls("we are five", lay_table, known={"dog": False}) == []


def test_a_tool_is_called_once_a_turn_and_never_for_the_words_of_a_reply() -> None:
    made = ToolRound((ToolCall("1", "free_tables", "{}"),), ("None.",))

    assert calls("on Friday", free_tables, rounds=(made,)) == []
    assert calls("on Friday", free_tables, output=Reply) == []


def test_the_same_call_has_the_same_id_and_others_have_others() -> None:
    def ids(text: str) -> list[str]:
        tools = (find_parcel.spec, stop_parcel.spec)
        return [call.id for call in generate(text, tools=tools, output=PLAIN).tool_calls]

    assert ids("A-1001") == ids("A-1001")
    assert len({*ids("A-1001"), *ids("A-1002"), *ids("hold A-1001")}) == 3


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("There are two.", "There are two. How many?"),
        ("none left", "None left. How many?"),
        ('{"city": "Oslo", "free_seats": 2, "ok": true}', "City Oslo, free seats 2, ok yes. How many?"),
        ('[{"id": 1}, {"id": 2}]', "Id 1; id 2. How many?"),
        ('["a", "b"]', "A, b. How many?"),
        ("[]", "Nothing. How many?"),
        ("17", "17. How many?"),
        ("", "Sorry, I did not get that. How many?"),
    ],
)
def test_what_a_tool_returned_is_said_before_the_question(output: str, says: str) -> None:
    made = ToolRound((ToolCall("1", "free_tables", "{}"),), (output,))

    plan = (PlannedStep("a", "How many?", ("guests",)),)
    assert generate("look", plan=plan, asked=("guests",), rounds=(made,)).data["message"] == says


def test_an_agent_calls_its_tools_and_says_what_they_say() -> None:
    called: list[str] = []

    @tool
    def book(turn: TurnContext, guests: int, name: str) -> str:
        """Book it."""
        called.append(f"{guests} {name}")
        return f"Booked as {turn.call_id.rpartition('/')[2]}."

    route = Route(
        "Book",
        steps=[Step("How many?", collect=["guests"]), Step("Your name?", collect=["name"], tools=[book])],
    )
    agent = Agent("Desk", provider=OfflineProvider(), schema=Form, routes=[route])

    assert agent.respond("hello").message == "How many?"
    assert agent.respond("five").message == "Your name?"
    assert agent.respond("Ann").message == "Booked as 0.0. Thank you. I have: guests 5, name Ann."
    assert called == ["5 Ann"]
