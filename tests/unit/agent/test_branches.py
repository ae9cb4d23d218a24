"""Branches, conditions in words, replies by code, and the other things a step can have."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from inturn import Agent, Branch, Route, Step, TurnContext
from inturn.agent import ModelRequest, ScriptedProvider
from inturn.persistence import MemoryAdapter


class Case(BaseModel):
    topic: Literal["refund", "repair", "praise"] | None = None
    order: str | None = None
    fault: str | None = None
    comment: str | None = None


TOPIC = Step("What is it about?", collect=["topic"])
ORDER = Step("Which order?", collect=["order"])
FAULT = Step("What is broken?", collect=["fault"])
COMMENT = Step("Anything else?", collect=["comment"])


def about(topic: str) -> Any:
    return lambda turn: turn.data["topic"] == topic


def agent(replies: Any, *steps: Step, **options: Any) -> Agent:
    route = Route("Case", steps=steps, **options.pop("route", {}))
    return Agent(
        "Desk",
        provider=ScriptedProvider(replies),
        schema=Case,
        routes=[route, *options.pop("routes", ())],
        **options,
    )


def requests(bot: Agent) -> list[ModelRequest]:
    provider = bot._definition.provider
    assert isinstance(provider, ScriptedProvider)
    return provider.requests


class TestBranches:
    def steps(self) -> list[Step]:
        topic = Step(
            "What is it about?",
            collect=["topic"],
            branches=[Branch("fault", when=about("repair")), Branch("comment", when=about("praise"))],
        )
        order = Step("Which order?", collect=["order"], branches=[Branch("comment")])
        return [topic, order, FAULT, COMMENT]

    @pytest.mark.parametrize(
        ("topic", "step"), [("repair", "fault"), ("praise", "comment"), ("refund", "order")]
    )
    def test_code_decides_where_a_route_goes_on(self, topic: str, step: str) -> None:
        bot = agent([{"topic": topic, "next_step": step, "message": "Well?"}], *self.steps())

        response = bot.respond("...")

        assert (response.step, response.usage.calls) == (step, 1)

    def test_what_a_branch_passes_over_is_never_asked(self) -> None:
        bot = agent(
            [
                {"topic": "refund", "message": "Which?"},
                {"order": "7", "message": "Else?"},
                {"comment": "no", "next_step": "done", "message": "Bye."},
            ],
            *self.steps(),
        )

        assert [bot.respond("...").step for _ in range(3)] == ["order", "comment", None]
        assert bot.session.get_data() == {"topic": "refund", "order": "7", "comment": "no"}

    def test_a_branch_is_taken_only_once_its_step_is_done(self) -> None:
        bot = agent([{"message": "What?"}], *self.steps())

        assert bot.respond("...").step == "topic", "its condition would fail without a topic"

    def test_a_branch_can_end_the_route(self) -> None:
        step = Step("What is it about?", collect=["topic"], branches=[Branch("done", when=about("praise"))])
        bot = agent([{"topic": "praise", "next_step": "done", "message": "Thanks!"}], step, ORDER)

        assert bot.respond("lovely").is_route_complete

    def test_a_branch_can_lead_to_another_route(self) -> None:
        step = Step(
            "What is it about?", collect=["topic"], branches=[Branch(route="repair", when=about("repair"))]
        )
        repair = Route("Repair", steps=[FAULT], when=lambda turn: turn.data.get("topic") == "repair")
        bot = agent(
            [{"topic": "repair", "next_step": "done", "message": "I see."}, {"message": "What is broken?"}],
            step, ORDER, routes=[repair], route={"when": lambda turn: True, "on_complete": "case"},
        )  # fmt: skip

        assert bot.respond("it broke").is_route_complete
        assert bot.respond("so?").route == "repair", "a branch comes before on_complete"

    def test_a_route_that_a_branch_leaves_early_is_not_complete(self) -> None:
        ask = Step("What?", collect=["topic"], branches=[Branch(route="human", when=about("praise"))])
        human = Route("Human", steps=[Step("A human will come.")], when=lambda turn: "topic" in turn.data)
        bot = agent(
            [{"topic": "praise", "next_step": "done", "message": "Oh!"}, {"message": "A human will come."}],
            ask, ORDER, routes=[human],
            route={"required_fields": ["topic", "order"], "when": lambda turn: True},
        )  # fmt: skip

        assert not bot.respond("lovely").is_route_complete
        assert bot.respond("so?").route == "human"
        assert bot.session.current is not None
        assert [entry.completed for entry in bot.session.current.route_history] == [False, True]

    def test_a_step_that_says_something_can_branch_too(self) -> None:
        hello = Step("Hello!", id="hello", branches=[Branch("comment", when=lambda turn: True)])
        bot = agent([{"message": "Hello!"}, {"message": "Else?"}], hello, ORDER, COMMENT)

        assert [bot.respond("hi").step for _ in range(2)] == ["hello", "comment"]


class TestWords:
    WORDED = Step("Which order?", collect=["order"], skip_if="the user has no order yet")
    FORK = Step(
        "How can I help?",
        id="help",
        collect=["comment"],
        branches=[Branch("fault", when="something is broken"), Branch("order", when="money is due")],
    )

    def test_the_model_decides_conditions_in_words(self) -> None:
        bot = agent(
            [{"decisions": {"skip_order": True}, "next_step": "fault", "message": "What?"}],
            self.WORDED,
            FAULT,
        )

        assert bot.respond("I have ordered nothing").step == "fault"
        asked = requests(bot)[0]
        assert asked.conditions == {"skip_order": "the user has no order yet"}
        assert "passed over if the user has no order yet" in asked.instructions
        schema = asked.output.model_json_schema()
        (decision,) = schema["$defs"]["Decisions"]["properties"].values()
        assert decision["description"] == "Is it so that the user has no order yet?"

    def test_what_was_decided_is_kept_until_it_is_decided_anew(self) -> None:
        store = MemoryAdapter()
        said = [
            {"decisions": {"skip_order": True}, "message": "What?"},
            {"decisions": {"skip_order": None}, "message": "What?"},
            {"decisions": {"skip_order": False}, "next_step": "order", "message": "Which?"},
        ]

        steps = []
        for reply in said:  # a new process each time
            bot = agent([reply, reply], self.WORDED, FAULT, persistence=store, session_id="s")
            steps.append(bot.respond("...").step)

        assert steps == ["fault", "fault", "order"]

    @pytest.mark.parametrize(
        ("decisions", "step"),
        [
            ({"branch_help_1": True}, "fault"),
            ({"branch_help_1": False, "branch_help_2": True}, "order"),
            ({}, "topic"),
            (None, "topic"),
            ({"branch_help_1": "yes", "nonsense": True}, "topic"),
        ],
    )
    def test_branches_in_words(self, decisions: Any, step: str) -> None:
        bot = agent(
            [{"comment": "hm", "decisions": decisions, "next_step": step, "message": "Well?"}],
            self.FORK, TOPIC, ORDER, FAULT,
        )  # fmt: skip

        assert bot.respond("...").step == step

    def test_code_and_words_must_both_hold(self) -> None:
        fork = Step(
            "?", id="help", collect=["comment"],
            branches=[Branch("fault", when=["something is broken", lambda turn: "order" in turn.data])],
        )  # fmt: skip
        reply = {"comment": "x", "decisions": {"branch_help_1": True}, "message": "Well?"}

        assert agent([reply], fork, TOPIC, FAULT).respond("...").step == "topic"
        bot = agent([{**reply, "order": "7"}], fork, TOPIC, FAULT)
        assert bot.respond("...").step == "fault"

    def test_what_a_condition_raises_fails_the_turn(self) -> None:
        bot = agent([{"message": "?"}], Step("?", collect=["topic"], skip_if=lambda turn: turn.data["x"]))

        with pytest.raises(KeyError):
            bot.respond("hi")
        assert bot.session.get_history() == []


class TestReplies:
    def test_a_reply_is_said_word_for_word(self) -> None:
        step = Step("Say the price", id="price", reply=lambda turn: f"{turn.data['order']} costs 5 EUR.")
        bot = agent([{"order": "tea", "next_step": "price", "message": "About 4 EUR?"}], ORDER, step, COMMENT)

        response = bot.respond("tea")

        assert (response.message, response.step, response.usage.calls) == ("tea costs 5 EUR.", "price", 1)

    def test_what_code_can_say_alone_asks_no_model(self) -> None:
        hours = Route("Hours", steps=[Step("Hours", reply="Open all day.")])
        bot = Agent("Desk", provider=ScriptedProvider([]), routes=[hours])

        response = bot.respond("when?")

        assert (response.message, response.is_route_complete, response.usage.calls) == (
            "Open all day.",
            True,
            0,
        )

    def test_a_refused_value_is_explained_by_the_model_all_the_same(self) -> None:
        bot = agent(
            [{"topic": "gossip", "message": "Fine"}, "A refund, a repair or praise?"],
            Step("?", collect=["topic"], reply="Choose a topic."),
        )

        assert bot.respond("gossip").message == "A refund, a repair or praise?"

    def test_a_routes_decorator_adds_a_step(self) -> None:
        route = Route("Hours")

        @route.step("Tell the hours")
        def hours(turn: TurnContext) -> str:
            return f"Open all day, {turn.message}."

        bot = Agent("Desk", provider=ScriptedProvider([]), routes=[route])

        response = bot.respond("friend")
        assert (response.message, route.steps[0].id) == ("Open all day, friend.", "hours")


class TestPrepareAndFinalize:
    def test_prepare_is_called_before_the_model_writes_about_the_step(self) -> None:
        calls: list[str] = []

        def load(turn: TurnContext) -> None:
            calls.append("load")
            turn.set_data({"comment": "slots: 9, 10"})

        bot = agent([{"message": "9 or 10?"}], Step("Which slot?", collect=["order"], prepare=load))
        bot.respond("hi")

        assert calls == ["load"]
        assert requests(bot)[0].known == {"comment": "slots: 9, 10"}

    def test_prepare_of_a_step_that_comes_up_makes_the_model_write_anew(self) -> None:
        calls: list[str] = []
        second = Step("What is broken?", collect=["fault"], prepare=lambda turn: calls.append("second"))
        bot = agent(
            [{"order": "7", "next_step": "fault", "message": "A guess"}, "What is broken?"], ORDER, second
        )

        response = bot.respond("7")

        assert (response.message, calls) == ("What is broken?", ["second"])

    def test_finalize_is_called_in_the_turn_that_has_done_the_step_and_in_no_other(self) -> None:
        calls: list[str] = []
        steps = [
            Step("Which order?", collect=["order"], finalize=lambda turn: calls.append(turn.data["order"])),
            Step("Noted.", id="noted", finalize=lambda turn: calls.append("noted")),
            FAULT,
        ]
        bot = agent(
            [{"message": "Which?"}, {"order": "7", "message": "Noted."}, {"message": "What?"}], *steps
        )

        seen = []
        for text in ("hi", "7", "so?"):
            bot.respond(text)
            seen.append(list(calls))

        assert seen == [[], ["7", "noted"], ["7", "noted"]]

    def test_a_message_that_changes_the_route_has_done_steps_of_both(self) -> None:
        calls: list[str] = []

        def note(turn: TurnContext) -> None:
            current = turn.session.current_route
            calls.append(current.id if current else "")

        order = Step("Which order?", collect=["order"], finalize=note)
        fault = Step("What is broken?", collect=["fault"], finalize=note)
        bot = agent(
            [
                {"route": "case"},
                {"message": "Which order?"},
                {"order": "7", "fault": "lid", "switch_route": "repair", "message": "Else?"},
                {"fault": "lid", "next_step": "comment", "message": "Else?"},
            ],
            order, COMMENT, routes=[Route("Repair", steps=[fault, COMMENT])],
        )  # fmt: skip
        bot.respond("an order")

        response = bot.respond("it is 7, and its lid is broken")

        assert (response.route, calls) == ("repair", ["case", "repair"])

    def test_what_they_change_is_committed_with_the_turn_or_not_at_all(self) -> None:
        store = MemoryAdapter()
        step = Step("?", collect=["order"], finalize=lambda turn: turn.set_data({"comment": "done"}))
        bot = agent([{"order": "7", "message": "x"}] * 2, step, FAULT, persistence=store, session_id="s")

        bot.respond("7")
        assert bot.session.get_data() == {"order": "7", "comment": "done"}

        def fail(turn: TurnContext) -> None:
            turn.set_data({"comment": "half"})
            raise RuntimeError

        bot = agent(
            [{"order": "7", "message": "x"}], Step("?", collect=["order"], finalize=fail), FAULT,
            persistence=store, session_id="other",
        )  # fmt: skip
        with pytest.raises(RuntimeError):
            bot.respond("7")
        assert store.load("other") is None


class TestRoutes:
    def routes(self) -> list[Route]:
        return [
            Route("Order", steps=[ORDER, COMMENT], initial_data={"topic": "refund"}),
            Route("Repair", steps=[FAULT], reentrant=True),
        ]

    def bot(self, replies: Any, **options: Any) -> Agent:
        return Agent("Desk", provider=ScriptedProvider(replies), schema=Case, routes=self.routes(), **options)

    def test_the_model_may_change_the_route(self) -> None:
        bot = self.bot(
            [
                {"route": "order"},
                {"message": "Which order?"},
                {"order": "7", "switch_route": "repair", "next_step": "order", "message": "Which order?"},
                {"message": "What is broken?"},
            ]
        )
        bot.respond("an order")

        response = bot.respond("it is 7, but first: it is broken")

        assert (response.route, response.step, response.message) == ("repair", "fault", "What is broken?")
        assert response.data == {"topic": "refund", "order": "7"}, "what was stated is kept"
        assert response.usage.calls == 2
        history = bot.session.current.route_history if bot.session.current else []
        assert [(entry.route_id, entry.completed, entry.exited_at is None) for entry in history] == [
            ("order", False, False),
            ("repair", False, True),
        ]

    def test_a_route_that_was_left_is_taken_up_where_it_was(self) -> None:
        bot = self.bot(
            [
                {"route": "order"},
                {"order": "7", "message": "Else?"},
                {"switch_route": "repair", "message": "Hm"},
                {"fault": "all", "next_step": "done", "message": "Noted."},
                {"route": "order"},
                {"message": "Anything else?"},
            ]
        )
        for text in ("an order, number 7", "it broke: all of it"):
            bot.respond(text)

        response = bot.respond("back to the order")

        assert (response.route, response.step) == ("order", "comment")

    def test_code_closes_a_route_to_changes_too(self) -> None:
        closed = Route("Closed", steps=[FAULT], when=lambda turn: False)
        bot = Agent(
            "Desk",
            provider=ScriptedProvider([{"switch_route": "closed", "message": "Which?"}]),
            schema=Case,
            routes=[Route("Order", steps=[ORDER], when=lambda turn: True), closed],
        )

        assert bot.respond("hi").route == "order"

    def test_a_route_starts_with_its_initial_data_where_there_is_none(self) -> None:
        bot = self.bot([{"route": "order"}, {"message": "Which?"}])
        assert bot.respond("hi").data == {"topic": "refund"}

        bot = self.bot([{"route": "order"}, {"message": "Which?"}])
        bot.session.set_data({"topic": "praise"})
        assert bot.respond("hi").data == {"topic": "praise"}

    def test_a_reentrant_route_begins_anew(self) -> None:
        bot = self.bot(
            [
                {"route": "repair"},
                {"fault": "lid", "next_step": "done", "message": "Noted."},
                {"route": "repair"},
                {"message": "What is broken?"},
            ]
        )
        assert bot.respond("the lid").is_route_complete

        response = bot.respond("something else broke")

        assert (response.route, response.step, response.data) == ("repair", "fault", {})

    def test_route_history_keeps_its_times_over_a_reload(self) -> None:
        store = MemoryAdapter()
        bot = self.bot([{"route": "order"}, {"message": "Which?"}], persistence=store, session_id="s")
        bot.respond("hi")
        before = bot.session.current

        again = self.bot([{"message": "Which?"}], persistence=store, session_id="s")
        again.respond("hm")

        assert before is not None
        assert again.session.current is not None
        assert again.session.current.route_history == before.route_history
        assert again.session.current.current_route == before.current_route

    def test_a_closing_says_how_a_route_ends(self) -> None:
        bot = agent(
            [{"order": "7", "message": "x"}, "See you!"], ORDER, route={"closing": "say goodbye in Latin"}
        )

        bot.respond("7")

        assert "let the message say goodbye in Latin" in requests(bot)[0].instructions
