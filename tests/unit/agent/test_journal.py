"""The journal: a turn that is taken again does not do again what its tools have done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from inturn import Agent, Route, Step, TurnContext
from inturn.agent import ModelReply, ModelRequest, ScriptedProvider, Tool, ToolCall
from inturn.contract import TurnFault
from inturn.errors import ProviderUnavailableError, StoreUnavailableError
from inturn.persistence import MessageQuery, PersistenceManager
from inturn.session.state import SessionState
from tests.stores import TroubledStore


def wants(*names: str) -> ModelReply:
    calls = tuple(ToolCall(f"c{index}", name, "{}") for index, name in enumerate(names))
    return ModelReply({}, tool_calls=calls)


class Shop:
    """A store, tools that count their calls, and attempts at one turn, each by a process of its own."""

    def __init__(self) -> None:
        self.store = TroubledStore()
        self.called: list[str] = []
        self.requests: list[ModelRequest] = []
        self.during: Callable[[], None] = lambda: None

    def tool(self, name: str, *, read_only: bool = False) -> Tool:
        def function(turn: TurnContext) -> str:
            self.called.append(name)
            self.during()
            turn.set_data({name: len(self.called)})
            return f"{name} {len(self.called)}"

        return Tool(function, name=name, description=name, read_only=read_only)

    def attempt(self, *replies: Any, **options: Any) -> Agent:
        def script(request: ModelRequest) -> Any:
            self.requests.append(request)
            return next(answers)

        answers = iter(replies)
        return Agent(
            "Shop",
            provider=ScriptedProvider(script),
            tools=[self.tool("pay"), self.tool("mail"), self.tool("look", read_only=True)],
            persistence=self.store,
            session_id="s",
            **options,
        )

    @property
    def session(self) -> SessionState:
        found = self.store.load("s")
        assert found is not None
        return found.session

    def outputs(self) -> list[tuple[str, ...]]:
        return [told.outputs for told in self.requests[-1].rounds]


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_after_a_crash_behind_the_results_nothing_is_called_again(shop: Shop) -> None:
    with pytest.raises(ProviderUnavailableError):
        shop.attempt(wants("pay", "mail"), ProviderUnavailableError()).respond("pay", turn_id="t")

    response = shop.attempt("Paid.").respond("pay", turn_id="t")

    assert response.message == "Paid."
    assert shop.called == ["pay", "mail"]
    assert shop.outputs() == [("pay 1", "mail 2")], "the model goes on behind the round"
    assert response.data == {"pay": 1, "mail": 2}, "what the tools changed is kept"
    assert response.usage.calls == 1, "it is not asked for the round again"
    assert shop.session.journal == {}


def test_a_call_that_was_announced_and_has_no_result_is_never_made_again(shop: Shop) -> None:
    announced = {}

    def note_and_die() -> None:
        announced.update(shop.session.journal["t"])
        shop.store.failing = {"commit"}

    shop.during = note_and_die
    with pytest.raises(StoreUnavailableError):
        shop.attempt(wants("pay")).respond("pay", turn_id="t")
    shop.store.failing, shop.during = set(), lambda: None

    response = shop.attempt("That must be looked into.").respond("pay", turn_id="t")

    assert announced["rounds"][0]["results"] == [None], "it was announced before it was called"
    assert shop.called == ["pay"]
    assert response.message == "That must be looked into."
    (output,) = shop.outputs()[0]
    assert output.startswith(
        "The process ended while this call was made: whether it took effect is not known"
    )


def test_a_call_that_was_never_announced_is_asked_for_anew(shop: Shop) -> None:
    shop.store.failing = {"commit"}
    with pytest.raises(StoreUnavailableError):
        shop.attempt(wants("pay")).respond("pay", turn_id="t")
    shop.store.failing = set()
    assert shop.called == []

    assert shop.attempt(wants("pay"), "Paid.").respond("pay", turn_id="t").message == "Paid."
    assert shop.called == ["pay"]


def test_read_only_calls_cost_no_commit_and_are_made_again(shop: Shop) -> None:
    with pytest.raises(ProviderUnavailableError):
        shop.attempt(wants("look"), ProviderUnavailableError()).respond("look", turn_id="t")
    assert shop.store.load("s") is None, "nothing was written"

    shop.attempt(wants("look"), "Seen.").respond("look", turn_id="t")

    assert shop.called == ["look", "look"]
    assert shop.session.version == 1


def test_a_read_only_call_before_another_is_noted_with_it(shop: Shop) -> None:
    with pytest.raises(ProviderUnavailableError):
        shop.attempt(wants("look"), wants("pay"), ProviderUnavailableError()).respond("pay", turn_id="t")

    shop.attempt("Paid.").respond("pay", turn_id="t")

    assert shop.called == ["look", "pay"]
    assert shop.outputs() == [("look 1",), ("pay 2",)]


def test_the_turn_goes_on_in_the_route_in_which_its_tools_were_called(shop: Shop) -> None:
    routes = [Route("Pay", steps=[Step("Paid?")]), Route("Talk", steps=[Step("Well?")])]
    with pytest.raises(ProviderUnavailableError):
        shop.attempt({"route": "pay"}, wants("pay"), ProviderUnavailableError(), routes=routes).respond(
            "pay", turn_id="t"
        )

    again = shop.attempt({"switch_route": "talk", "message": "Paid."}, routes=routes)

    assert again.respond("pay", turn_id="t").route == "pay"
    assert shop.called == ["pay"]


def test_another_turn_does_not_take_over_the_journal(shop: Shop) -> None:
    with pytest.raises(ProviderUnavailableError):
        shop.attempt(wants("pay"), ProviderUnavailableError()).respond("pay", turn_id="t1")

    shop.attempt(wants("pay"), "Paid.").respond("pay", turn_id="t2")

    assert shop.called == ["pay", "pay"]


def test_a_turn_that_is_given_up_tells_what_its_tools_did(shop: Shop) -> None:
    with pytest.raises(ProviderUnavailableError):
        shop.attempt(wants("pay"), ProviderUnavailableError()).respond("pay", turn_id="t")

    shop.attempt().record_failure("pay", TurnFault(type="X", message="x"), turn_id="t")

    rows = shop.store.find_messages(MessageQuery(session_id="s")).items
    assert [(row.role, row.content) for row in rows[:2]] == [("user", "pay"), ("tool", "pay 1")]
    assert rows[2].event == {"failed": "X"}
    assert shop.session.journal == {}
    assert shop.session.data == {}, "the turn itself has changed nothing"


def test_of_two_workers_with_the_same_turn_one_calls(shop: Shop) -> None:
    """The first is paused past its lease between its announcement and its call."""
    second = shop.attempt("That must be looked into.")
    answers: list[str] = []

    def meanwhile() -> None:
        shop.during = lambda: None
        answers.append(second.respond("pay", turn_id="t").message)

    shop.during = meanwhile
    first = shop.attempt(wants("pay"), "Paid.")

    assert first.respond("pay", turn_id="t").message == answers[0] == "That must be looked into."
    assert shop.called == ["pay"]
    assert len(shop.store.find_messages(MessageQuery(session_id="s")).items) == 3


def test_a_worker_that_is_late_cannot_announce_a_call(shop: Shop) -> None:
    """The first is paused while the model thinks; meanwhile another has announced the same turn's calls."""
    thoughts: list[ModelRequest] = []

    def think(request: ModelRequest) -> Any:
        thoughts.append(request)
        if len(thoughts) == 1:
            with pytest.raises(ProviderUnavailableError):
                shop.attempt(wants("mail"), ProviderUnavailableError()).respond("x", turn_id="t")
            return wants("pay")
        shop.requests.append(request)
        return "Mailed."

    first = Agent(
        "Shop", provider=ScriptedProvider(think), tools=[shop.tool("pay"), shop.tool("mail")],
        persistence=shop.store, session_id="s",
    )  # fmt: skip

    assert first.respond("x", turn_id="t").message == "Mailed."
    assert shop.called == ["mail"], "the late one has found the other's announcement"
    assert shop.outputs() == [("mail 1",)]


def test_a_status_that_others_set_meanwhile_disturbs_neither_tool_nor_turn(shop: Shop) -> None:
    manager = PersistenceManager(shop.store)
    shop.attempt("hello").respond("hi")

    def complete() -> None:
        shop.during = lambda: None
        manager.update_session_status("s", "completed")

    shop.during = complete
    response = shop.attempt(wants("pay"), "Paid.").respond("pay", turn_id="t")

    assert response.message == "Paid."
    assert shop.called == ["pay"]
    assert (shop.session.status, shop.session.data) == ("completed", {"pay": 1})


@pytest.mark.parametrize("lost", [False, True])
def test_a_store_that_goes_away_at_the_announcement(shop: Shop, lost: bool) -> None:
    """The announcement is not written, or it is and its answer is lost: nothing is called either way."""
    shop.attempt("hello").respond("hi")
    bot = shop.attempt(wants("pay"), *([] if lost else [wants("pay")]), "Paid.")

    shop.store.failing, shop.store.lost_answers = (set(), 1) if lost else ({"commit"}, 0)
    with pytest.raises(StoreUnavailableError):
        bot.respond("pay", turn_id="t")
    shop.store.failing = set()
    assert shop.called == []

    assert bot.respond("pay", turn_id="t").message == "Paid.", "the same agent goes on once it is back"
    assert shop.called == ([] if lost else ["pay"])


def test_without_auto_save_the_journal_stays_in_memory(shop: Shop) -> None:
    bot = shop.attempt(wants("pay"), "Paid.", auto_save=False)

    assert bot.respond("pay", turn_id="t").message == "Paid."
    assert shop.store.load("s") is None
    bot.session.save()
    assert shop.session.journal == {}
    assert shop.session.data == {"pay": 1}


def test_once_is_once_for_a_turn_however_often_it_is_taken(shop: Shop) -> None:
    charged: list[str] = []

    def charge(turn: TurnContext) -> None:
        turn.set_data(turn.once("charge", receipt))

    def receipt() -> dict[str, int]:
        charged.append("charge")
        return {"receipt": len(charged)}

    steps = [Step("Anything else?", prepare=charge)]
    with pytest.raises(ProviderUnavailableError):
        shop.attempt(ProviderUnavailableError(), routes=[Route("R", steps=steps)]).respond("x", turn_id="t")

    response = shop.attempt("Anything else?", routes=[Route("R", steps=steps)]).respond("x", turn_id="t")

    assert charged == ["charge"]
    assert response.data == {"receipt": 1}
    assert shop.session.journal == {}


def test_words_that_others_say_while_a_tool_runs_take_the_turn_again_behind_the_call(shop: Shop) -> None:
    shop.attempt("hello").respond("hi")

    def speak() -> None:
        shop.during = lambda: None
        other = Agent("Shop", provider=ScriptedProvider(["yes"]), persistence=shop.store, session_id="s")
        other.respond("a turn of somebody who holds no lease", turn_id="other")

    shop.during = speak
    response = shop.attempt(wants("pay"), "Paid.").respond("pay", turn_id="t")

    assert response.message == "Paid."
    assert shop.called == ["pay"]
    assert shop.outputs() == [("pay 1",)], "its result was kept"
    assert shop.requests[-1].messages[-2].content == "yes", "and what was said meanwhile is part of the turn"
    assert response.data == {"pay": 1}
