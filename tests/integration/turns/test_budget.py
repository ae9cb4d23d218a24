"""The budget of the model: never more than its limits, whoever asks; what is used is recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from redis import Redis

from inturn.agent import Agent, ModelReply, ScriptedProvider, ToolCall
from inturn.contract import Usage
from inturn.embedded.ports import free_port
from inturn.errors import (
    ConfigurationError,
    ModelBudgetError,
    ProviderError,
    ProviderUnavailableError,
)
from inturn.settings import Settings, load_settings
from inturn.turns import ModelBudget
from inturn.turns.connection import connect
from tests.waiting import wait_until

MakeBudget = Callable[..., ModelBudget]


@pytest.fixture
def make_budget(turn_settings: Callable[..., Settings]) -> Iterator[MakeBudget]:
    with ExitStack() as stack:

        def make(**limits: object) -> ModelBudget:
            settings = turn_settings(**limits)
            return ModelBudget(stack.enter_context(connect(settings)), settings)

        yield make


def turn(budget: ModelBudget, provider: ScriptedProvider, tenant: str | None = None) -> str:
    """Take a turn as a worker does; each in a conversation of its own."""
    agent = Agent("spender", provider=provider, tools=[look_up])
    return agent.bind("s", budget=budget.of_turn(tenant)).respond("hello").message


def look_up(word: str) -> str:
    """Look a word up."""
    return word


def used(tokens: int, calls: int = 1) -> ModelReply:
    return ModelReply({"message": "hello"}, Usage(calls=calls, input_tokens=tokens - 1, output_tokens=1))


def test_without_limits_nobody_asks(make_budget: MakeBudget) -> None:
    budget = make_budget()

    assert not budget
    assert budget.of_turn("a") is None


def test_no_window_has_more_than_the_limit_wherever_it_begins(make_budget: MakeBudget) -> None:
    budgets = [make_budget(model_requests="7/second", retry_max_seconds=0.3) for _ in range(4)]
    began = time.monotonic()

    def ask(budget: ModelBudget) -> list[tuple[float, float]]:
        let_in: list[tuple[float, float]] = []
        while time.monotonic() < began + 4 and len(let_in) < 100:
            before = time.monotonic()
            try:
                budget.enter(None)
            except ModelBudgetError as error:
                time.sleep(min(error.retry_after, 0.2))
            else:
                let_in.append((before, time.monotonic()))
        return let_in

    with ThreadPoolExecutor(4) as pool:
        let_in = [span for spans in pool.map(ask, budgets) for span in spans]

    assert len(let_in) > 7, "it goes on after the first window"
    for start, _ in let_in:
        # Those of which it is certain that they were let in within this second.
        assert sum(start <= before and after < start + 1 for before, after in let_in) <= 7


def test_who_is_refused_is_told_when_to_come_and_nothing_is_counted(make_budget: MakeBudget) -> None:
    budget = make_budget(model_requests="2/2 seconds", retry_max_seconds=0.5)
    budget.enter(None)
    budget.enter(None)
    for _ in range(5):
        with pytest.raises(ModelBudgetError, match="requests: 2 in 2 s") as refused:
            budget.enter(None)
        assert 0 < refused.value.retry_after <= 2.1 + 0.5

    def is_let_in() -> bool:
        try:
            budget.enter(None)
        except ModelBudgetError:
            return False
        return True

    assert wait_until(is_let_in)


def test_those_who_wait_come_back_spread_by_their_number(make_budget: MakeBudget) -> None:
    budget = make_budget(model_requests="1/minute", retry_max_seconds=1000)
    budget.enter(None)
    waits = []
    for _ in range(40):
        with pytest.raises(ModelBudgetError) as refused:
            budget.enter(None)
        waits.append(refused.value.retry_after)

    assert min(waits) > 50
    assert max(waits) > 120, "forty minutes' worth of turns does not come back within two"


def test_a_tenants_limit_is_its_own_and_that_of_all_is_everybodys(make_budget: MakeBudget) -> None:
    budget = make_budget(model_requests="3/hour", tenant_model_requests="2/hour")
    budget.enter("a")
    budget.enter("a")
    with pytest.raises(ModelBudgetError, match="of one tenant"):
        budget.enter("a")

    budget.enter("b")
    for tenant in ("b", "c", None):
        with pytest.raises(ModelBudgetError, match="requests: 3 in 3600 s"):
            budget.enter(tenant)


def test_of_several_limits_each_counts_and_of_one_window_the_smaller(make_budget: MakeBudget) -> None:
    budget = make_budget(model_requests="9/hour;3/hour;2/day")
    budget.enter(None)
    budget.enter(None)

    with pytest.raises(ModelBudgetError, match="requests: 2 in 86400 s"):
        budget.enter(None)
    with pytest.raises(ModelBudgetError, match="requests: 2 in 3600 s"):
        make_budget(model_requests="9/hour;2/60 minutes").enter(None)


def test_a_call_that_is_repeated_for_a_lost_answer_counts_once(
    make_budget: MakeBudget, redis_client: Redis, key_prefix: str
) -> None:
    budget = make_budget(model_requests="2/hour")
    keys = [f"{key_prefix}:{{budget}}:{name}" for name in ("closed", "call:1", "requests:3600")]
    replies = [budget._scripts.run("spend", keys, 1, 0, 60_000, 2, 3_600_000, 1) for _ in range(5)]

    assert replies == [[0, 0, 0]] * 5
    assert [int(value) for value in redis_client.hvals(keys[2])] == [1]


def test_tokens_are_recorded_after_the_call_and_keep_later_turns_out(make_budget: MakeBudget) -> None:
    budget = make_budget(model_tokens="150/hour")
    provider = ScriptedProvider([used(100), used(100), used(100)])

    assert [turn(budget, provider), turn(budget, provider)] == ["hello", "hello"]
    with pytest.raises(ModelBudgetError, match="tokens: 150 in 3600 s"):
        turn(budget, provider)
    assert len(provider.requests) == 2, "a turn that is refused asks nothing of the model"


def test_a_turn_that_has_begun_goes_on_and_all_its_calls_are_recorded(
    make_budget: MakeBudget, redis_client: Redis, key_prefix: str
) -> None:
    budget = make_budget(model_requests="1/hour")
    call = ToolCall("c1", "look_up", json.dumps({"word": "x"}))
    provider = ScriptedProvider([ModelReply({}, tool_calls=(call,)), used(10, calls=3)])

    assert turn(budget, provider) == "hello"
    with pytest.raises(ModelBudgetError):
        turn(budget, provider)
    counts: Any = redis_client.hgetall(f"{key_prefix}:{{budget}}:requests:3600")
    recorded = sum(int(value) for name, value in counts.items() if not name.startswith(b"r"))
    assert recorded == 4, "a provider may have asked several models for one answer"


def test_a_call_that_fails_is_a_request(make_budget: MakeBudget) -> None:
    budget = make_budget(model_requests="2/hour")
    provider = ScriptedProvider([ProviderError("no"), ProviderError("no"), used(1)])
    for _ in range(2):
        with pytest.raises(ProviderError):
            turn(budget, provider)

    with pytest.raises(ModelBudgetError):
        turn(budget, provider)


def test_a_pause_that_the_model_asks_for_is_kept_by_all(make_budget: MakeBudget) -> None:
    budget = make_budget(tenant_model_requests="100/hour", retry_max_seconds=40)
    provider = ScriptedProvider([ProviderUnavailableError(retry_after=9999), used(1)])
    with pytest.raises(ProviderUnavailableError):
        turn(budget, provider, "a")

    for tenant in ("a", "b", None):
        with pytest.raises(ModelBudgetError, match="pause") as refused:
            turn(budget, provider, tenant)
        assert 0 < refused.value.retry_after <= 40 * 1.05, "no longer than the longest wait between two tries"
    assert len(provider.requests) == 1


def test_a_stream_that_is_left_early_is_recorded_about(make_budget: MakeBudget) -> None:
    budget = make_budget(model_tokens="2/hour")
    provider = ScriptedProvider([used(1)], size=1)
    agent = Agent("spender", provider=provider).bind("s", budget=budget.of_turn(None))
    with agent.stream("hello") as stream:
        for _ in stream:
            stream.stop()

    with pytest.raises(ModelBudgetError):
        budget.enter(None)


def test_while_redis_is_away_a_call_that_was_made_is_no_failure(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(redis_url=f"redis://127.0.0.1:{free_port()}/0", model_requests="1/hour")
    with connect(settings, retries=0) as redis:
        allowance = ModelBudget(redis, settings).of_turn(None)
        assert allowance is not None
        allowance.after_call(Usage(calls=1), None)

    assert "use of the model not recorded" in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["model_requests", "model_tokens", "tenant_model_requests", "tenant_model_tokens"]
)
def test_a_limit_that_is_none_is_refused_by_name(make_budget: MakeBudget, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"INTURN_{name.upper()} is no rate"):
        make_budget(**{name: "many"})
