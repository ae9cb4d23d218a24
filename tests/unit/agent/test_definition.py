"""Mistakes in a declaration are found when it is made; the error names the mistake and the mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from inturn import Agent, Branch, OfflineProvider, Route, Step
from inturn.errors import AgentDefinitionError


class Booking(BaseModel):
    name: str
    party_size: int


def agent(*routes: Route, **options: Any) -> Agent:
    return Agent("A", **{"provider": OfflineProvider(), "schema": Booking, "routes": routes, **options})


class Message(BaseModel):
    message: str


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: Step(""), "a step has no prompt; write Step("),
        (lambda: Step("?", collect="name"), "must be a list of field names; write ['name']"),
        (lambda: Step("?", requires="name"), "must be a list of field names; write ['name']"),
        (lambda: Step("?", skip_if=3), "skip_if of step '?' must be words for the model or a function"),  # type: ignore[arg-type]
        (lambda: Route(""), "a route has no title; write Route("),
        (lambda: Route("R", required_fields="name"), "required_fields of route 'R' must be a list"),
        (lambda: Route("R", steps=["Name?"]), "step 1 of route 'R' is str; write Step('Name?')"),  # type: ignore[list-item]
        (
            lambda: Route("R", steps=[Step("a", collect=["name"]), Step("b", collect=["name"])]),
            "steps 1 and 2 of route 'R' have the same id 'name'; give one of them another: Step(..., id=...)",
        ),
        (
            lambda: agent(Route("R", required_fields=["name"])),
            "required field 'name' of route 'R' is collected by none of its steps; add Step(",
        ),
        (
            lambda: Route(
                "R", required_fields=["name"], optional_fields=["name"], steps=[Step("?", collect=["name"])]
            ),
            "field 'name' of route 'R' is in required_fields and in optional_fields",
        ),
        (
            lambda: agent(Route("R", steps=[Step("?", collect=["nmae"])])),
            "collect of step 'nmae' of route 'R' names 'nmae', which is no field of the schema; did you mean",
        ),
        (
            lambda: agent(Route("R", steps=[Step("?", id="s", collect=["zzz"])])),
            "the schema has name, party_size",
        ),
        (lambda: agent(Route("R", optional_fields=["nam"])), "optional_fields of route 'R' names 'nam'"),
        (lambda: agent(Route("R", steps=[Step("?", requires=["nam"])])), "did you mean 'name'?"),
        (
            lambda: agent(Route("R", steps=[Step("?", collect=["name"])]), schema=None),
            "the agent has no schema; write Agent(..., schema=...)",
        ),
        (lambda: Step("?", tools=["find"]), "a tool must be a function, not 'find'"),  # type: ignore[list-item]
        (lambda: Step("?", branches=["a"]), "branches of step '?' holds a str; write Branch("),  # type: ignore[list-item]
        (lambda: Step("?", reply=5), "reply of step '?' must be a text or a function"),  # type: ignore[arg-type]
        (lambda: Step("?", prepare="load"), "prepare of step '?' must be a function of the turn"),  # type: ignore[arg-type]
        (lambda: Branch(), 'a branch leads to a step or to a route; write Branch("step-id", when=...)'),
        (lambda: Branch("a", route="b"), "a branch leads to a step or to a route"),
        (lambda: Branch("a", when=""), "when of the branch to 'a' must be words for the model or a function"),
        (
            lambda: agent(Route("R", steps=[Step("a"), Step("b", branches=[Branch("a")])])),
            "a branch of step 'b' of route 'R' leads to 'a', which is no later step of its route (there",
        ),
        (
            lambda: agent(Route("R", steps=[Step("a", branches=[Branch(route="x")])])),
            "a branch of step 'a' of route 'R' leads to 'x', which is no route; the agent has r",
        ),
        (
            lambda: agent(Route("R", steps=[Step("a", branches=[Branch("c")]), Step("b"), Step("c")])),
            "step 'b' of route 'R' cannot be reached: a branch without a condition passes it over",
        ),
        (
            lambda: agent(Route("R", steps=[Step("a", branches=[Branch("done")]), Step("b")])),
            "step 'b' of route 'R' cannot be reached",
        ),
        (
            lambda: agent(Route("R", initial_data={"nam": 1})),
            "initial_data of route 'R' names 'nam', which is no field of the schema; did you mean 'name'?",
        ),
        (
            lambda: agent(Route("R", initial_data={"party_size": "many"})),
            "initial_data of route 'R': party_size: ",
        ),
        (lambda: agent(Route("R"), Route("r")), "the id 'r' of route 'r' is taken; write Route(..., id=...)"),
        (lambda: agent(Route("None")), "the id 'none' of route 'None' has a meaning of its own"),
        (lambda: agent(Route("R", steps=[Step("Done")])), "has a meaning of its own; give it another id="),
        (
            lambda: agent(Route("R", on_complete="x")),
            "on_complete of route 'R' names 'x', which is no route; the agent has r",
        ),
        (lambda: agent("R"), "routes of agent 'A' holds a str; write Route(title, ...)"),  # type: ignore[arg-type]
        (lambda: agent(schema=dict), "schema must be a class derived from pydantic.BaseModel"),
        (
            lambda: agent(schema=Message),
            "the schema has a field 'message', a name the agent needs; rename it",
        ),
        (
            lambda: agent(provider="gpt"),
            "lacks generate(request) or stream(request); use OfflineProvider() or OpenAIProvider()",
        ),
        (lambda: agent(history_window=-1), "history_window of agent 'A' must be 0 or more"),
        (lambda: Agent(" ", provider=OfflineProvider()), "an agent needs a name"),
    ],
)
def test_a_mistake_is_named_with_its_mend(declare: Callable[[], object], says: str) -> None:
    with pytest.raises(AgentDefinitionError) as caught:
        declare()

    assert says in str(caught.value)


def test_ids_are_made_of_what_is_there() -> None:
    route = Route(
        "Book a table!",
        steps=[
            Step("Name?", collect=["name"]),
            Step("Size?", description="Party size"),
            Step("Is it - so to say - über OK?"),
            Step("x", id="own"),
        ],
    )

    assert route.id == "book-a-table"
    assert [step.id for step in route.steps] == ["name", "party-size", "is-it-so-to-say-über-ok", "own"]


def test_a_declaration_cannot_be_changed() -> None:
    collect = ["name"]
    step = Step("Name?", collect=collect)
    collect.append("party_size")

    assert step.collect == ("name",)
    with pytest.raises(AttributeError):
        step.prompt = "?"  # type: ignore[misc]


def test_a_step_is_added_before_the_agent_is_made() -> None:
    route = Route("R", steps=[Step("a")])
    agent(route)

    with pytest.raises(
        AgentDefinitionError, match="route 'R' belongs to an agent already; add its steps before"
    ):
        route.step("b")(lambda turn: "b")


def test_branches_that_lead_to_every_step_are_fine() -> None:
    fork = Step("a", branches=[Branch("b", when="x"), Branch("c")])

    agent(Route("R", steps=[fork, Step("b", branches=[Branch("done")]), Step("c")]))
