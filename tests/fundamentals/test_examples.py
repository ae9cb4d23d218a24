"""The examples, talked to: whole conversations, turn by turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from inturn import Agent, Client
from inturn.persistence import MemoryAdapter, MessageQuery, PersistenceAdapter
from tests.asking import whole
from tests.integration.worker.conftest import StartWorker
from tests.servers_openai import OwnServer


class Turn(NamedTuple):
    """What the user says, and what is answered. `data` is what is new or different after the turn."""

    said: str
    reply: str
    step: str | None
    data: dict[str, Any]


BOOKING = [
    Turn("Hello", "How can I help you?", None, {}),
    Turn(
        "I would like to book a table for four",
        "Noted: party size 4. On which day?",
        "book-a-table/date",
        {"party_size": 4},
    ),
    Turn(
        "Are you open on sundays?",
        "We are open from noon to 10 pm, every day.",
        "opening-hours/hours",
        {},
    ),
    Turn(
        "Outside, please",
        "Noted: seating outside. On which day?",
        "book-a-table/date",
        {"seating": "outside"},
    ),
    Turn(
        "On 2030-05-03 at half past seven",
        "On Friday, May 3, a table for 4 is free. Under which name?",
        "book-a-table/name",
        {"date": "2030-05-03", "time": "19:30:00"},
    ),
    Turn(
        "And actually we are twelve",
        "On Friday, May 3, the long table by the window is free. Under which name?",
        "book-a-table/name",
        {"party_size": 12},
    ),
    Turn(
        "Ann Lee", "Is there a phone number we can reach you at?", "book-a-table/phone", {"name": "Ann Lee"}
    ),
    Turn(
        "555-0101",
        "Thank you. I have: party size 12, seating outside, date 2030-05-03, time 19:30, name Ann Lee, "
        "phone 555-0101.",
        "book-a-table",
        {"phone": "555-0101"},
    ),
    Turn("Thanks!", "Can I do anything else for you?", None, {}),
    Turn(
        "When do you close?",
        "We are open from noon to 10 pm, every day.",
        "opening-hours/hours",
        {},
    ),
]

REFUND = [
    Turn(
        "Where is my order a-1001?",
        "Order A-1001, a teapot, was delivered on Monday. Thank you. I have: order id a-1001.",
        "order-status",
        {"order_id": "A-1001"},
    ),
    Turn(
        "I want my money back for it",
        "Is it damaged, late, the wrong item, or did you change your mind?",
        "refund/reason",
        {},
    ),
    Turn(
        "The lid came damaged",
        "Shall the money go back to your card?",
        "refund/agreed",
        {"reason": "damaged"},
    ),
    Turn(
        "Yes, please",
        "40 euros are on their way back to you. "
        "Thank you. I have: order id A-1001, reason damaged, agreed yes.",
        "refund",
        {"agreed": True},
    ),
]

ANOTHERS_ORDER = [
    Turn(
        "I would like a refund for B-2002",
        "Order B-2002, a bicycle, is on its way. "
        "Is it damaged, late, the wrong item, or did you change your mind?",
        "refund/reason",
        {"order_id": "B-2002"},
    ),
    Turn(
        "Sorry, I meant A-1001",
        "This call is not permitted. Is it damaged, late, the wrong item, or did you change your mind?",
        "refund/reason",
        {"order_id": "A-1001"},
    ),
    Turn("It is late", "Shall the money go back to your card?", "refund/agreed", {"reason": "late"}),
    Turn(
        "Yes",
        "This call is not permitted. Thank you. I have: order id A-1001, reason late, agreed yes.",
        "refund",
        {"agreed": True},
    ),
]

ANOTHER_CASE = [
    Turn(
        "A refund for A-1001, it is late",
        "Order A-1001, a teapot, was delivered on Monday. Shall the money go back to your card?",
        "refund/agreed",
        {"order_id": "A-1001", "reason": "late"},
    ),
    Turn(
        "Sorry, I meant A-1002",
        "This call is not permitted. Is it damaged, late, the wrong item, or did you change your mind?",
        "refund/reason",
        {"order_id": "A-1002"},
    ),
]

BRANCH_IN_WORDS = [
    Turn("Refund please", "Which order is it? Its number looks like A-1001.", "refund/order_id", {}),
    Turn(
        "A-1001",
        "Order A-1001, a teapot, was delivered on Monday. "
        "Is it damaged, late, the wrong item, or did you change your mind?",
        "refund/reason",
        {"order_id": "A-1001"},
    ),
    Turn(
        "It is late, and I want to talk to a human",
        "Thank you. I have: order id A-1001, reason late.",
        "refund",
        {"reason": "late"},
    ),
    Turn("ok", "Under which number can we call you?", "person/phone", {}),
    Turn("555-0101", "We will call 555-0101 within the hour.", "person/say-when", {"phone": "555-0101"}),
]

BRANCH_IN_CODE = [
    Turn(
        "A refund for B-2002, it was the wrong item",
        "Order B-2002, a bicycle, is on its way. Thank you. I have: order id B-2002, reason wrong item.",
        "refund",
        {"order_id": "B-2002", "reason": "wrong item"},
    ),
    Turn("and now?", "Under which number can we call you?", "person/phone", {}),
]

BY_CAR = [
    Turn("Hello", "How old are you?", "questionnaire/age", {}),
    Turn("I am 34", "When were you here last?", "questionnaire/last_visit", {"age": 34}),
    Turn(
        "2030-05-03",
        "How do you come here: on foot, by bike, by bus or by car?",
        "questionnaire/arrival",
        {"last_visit": "2030-05-03"},
    ),
    Turn("By car", "How easy is it to park, from 1 to 5?", "questionnaire/parking", {"arrival": "by car"}),
    Turn("Not at all", "How often are you here in a month?", "questionnaire/visits", {}),
    Turn("2", "Do you borrow books?", "questionnaire/borrows", {"visits": 2}),
    Turn(
        "Yes",
        "What do you borrow most: novels, crime, science or comics?",
        "questionnaire/genre",
        {"borrows": True},
    ),
    Turn("Comics, mostly", "How content are you, from 1 to 10?", "questionnaire/rating", {"genre": "comics"}),
    Turn(
        "11",
        "Sorry, that does not work (rating: input should be less than or equal to 10). "
        "How content are you, from 1 to 10?",
        "questionnaire/rating",
        {},
    ),
    Turn("6", "What should be better?", "questionnaire/better", {"rating": 6}),
    Turn(
        "The chairs", "Would you like our newsletter?", "questionnaire/newsletter", {"better": "The chairs"}
    ),
    Turn("Yes", "What is your e-mail address?", "questionnaire/email", {"newsletter": True}),
    Turn(
        "ann@example.org",
        "Thank you. I have: age 34, last visit 2030-05-03, arrival by car, visits 2, borrows yes, "
        "genre comics, rating 6, better The chairs, newsletter yes, email ann@example.org.",
        "questionnaire",
        {"email": "ann@example.org"},
    ),
]

BY_BIKE = [
    Turn(
        "Hi, I come by bike",
        "Noted: arrival by bike. How old are you?",
        "questionnaire/age",
        {"arrival": "by bike"},
    ),
    Turn("twelve", "When were you here last?", "questionnaire/last_visit", {"age": 12}),
    Turn(
        "2030-05-03",
        "How often are you here in a month?",
        "questionnaire/visits",
        {"last_visit": "2030-05-03"},
    ),
    Turn("5", "Do you borrow books?", "questionnaire/borrows", {"visits": 5}),
    Turn("No", "How content are you, from 1 to 10?", "questionnaire/rating", {"borrows": False}),
    Turn("9", "What do you like best?", "questionnaire/favourite", {"rating": 9}),
    Turn("The sofa", "Would you like our newsletter?", "questionnaire/newsletter", {"favourite": "The sofa"}),
    Turn(
        "No",
        "Thank you. I have: arrival by bike, age 12, last visit 2030-05-03, visits 5, borrows no, rating 9, "
        "favourite The sofa, newsletter no.",
        "questionnaire",
        {"newsletter": False},
    ),
]

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import an example for one test alone, with no key of OpenAI's."""
    for name in ("OPENAI_API_KEY", "INTURN_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def load(name: str) -> ModuleType:
        spec = find_spec(f"examples.{name}")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def hold(agent: Agent, conversation: list[Turn]) -> None:
    """Say what the user says, and compare what comes back."""
    before: dict[str, Any] = {}
    for turn in conversation:
        response = agent.respond(turn.said)
        place = "/".join(part for part in (response.route, response.step) if part) or None
        new = {name: value for name, value in response.data.items() if before.get(name) != value}
        assert (response.message, place, new) == (turn.reply, turn.step, turn.data)
        before = response.data


def called(agent: Agent) -> list[str]:
    """The tools that were called, in order."""
    return [line.name or "" for line in agent.session.get_history() if line.role == "tool"]


def test_the_front_desk_takes_a_booking_with_a_question_in_between(load: Load) -> None:
    agent = load("booking").agent

    hold(agent, BOOKING)

    assert called(agent) == ["find_table", "find_table"]


def test_the_support_desk_pays_back_once(load: Load) -> None:
    support = load("support")
    ann = support.agent.bind("first", user_id="ann", persistence=MemoryAdapter())

    hold(ann, REFUND)

    assert called(ann) == ["look_up_order", "refund"]
    assert list(support.PAID_BACK.values()) == ["A-1001"]

    again = support.agent.bind("second", user_id="ann", persistence=MemoryAdapter())
    again.respond("I want my money back for A-1001, it was damaged")
    assert again.respond("Yes").message.startswith("The money for this order was given back before.")
    assert list(support.PAID_BACK.values()) == ["A-1001"]


def test_nobody_gets_the_money_of_another_ones_order(load: Load) -> None:
    support = load("support")
    bob = support.agent.bind("s", user_id="bob", persistence=MemoryAdapter())

    hold(bob, ANOTHERS_ORDER)

    assert called(bob) == ["look_up_order", "look_up_order", "refund"]
    assert support.PAID_BACK == {}


def test_another_order_is_another_case(load: Load) -> None:
    ann = load("support").agent.bind("s", user_id="ann", persistence=MemoryAdapter())

    hold(ann, ANOTHER_CASE)

    assert ann.session.get_data() == {"order_id": "A-1002"}


def test_a_branch_in_words_hands_over_to_a_person(load: Load) -> None:
    support = load("support")

    hold(support.agent.bind("s", user_id="ann", persistence=MemoryAdapter()), BRANCH_IN_WORDS)

    assert support.CALLS == ["555-0101"]


def test_a_branch_in_code_hands_over_what_is_dear(load: Load) -> None:
    support = load("support")

    hold(support.agent.bind("s", user_id="bob", persistence=MemoryAdapter()), BRANCH_IN_CODE)

    assert support.PAID_BACK == {}


@pytest.mark.parametrize("conversation", [BY_CAR, BY_BIKE], ids=["by car", "by bike"])
def test_the_questionnaire_asks_what_the_answers_call_for(load: Load, conversation: list[Turn]) -> None:
    agent = load("questionnaire").agent

    hold(agent, conversation)

    (stay,) = agent.session.current.route_history
    assert stay.completed


@pytest.mark.parametrize("name", ["booking", "support", "questionnaire"])
def test_with_a_key_an_example_asks_openai(name: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps(whole("responses", json.dumps({"route": "none", "message": "Good morning!"})))
    with OwnServer(lambda line: line.says(answer)) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)

        assert load(name).agent.respond("Hello").message == "Good morning!"

    assert all(line.body["text"]["format"]["strict"] for line in server.lines)


@pytest.mark.process
def test_the_support_desk_answers_through_the_queue(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    start_worker(INTURN_AGENT="examples.support:agent")

    for number, turn in enumerate(REFUND):
        handle = client.respond("s", turn.said, user_id="ann", turn_id=f"event-{number}", stream=True)
        told = ""
        for piece in handle.stream(timeout=30):
            told = piece.text if piece.restarts else told + piece.text
        assert told == handle.get(timeout=30).message == turn.reply

    rows = store.find_messages(MessageQuery(session_id="s")).items
    assert [row.name for row in rows if row.role == "tool"] == ["look_up_order", "refund"]
    assert rows[-1].content == REFUND[-1].reply
