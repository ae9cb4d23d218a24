"""OpenAIProvider's backup models: who is asked next, when, and which error is left if nobody answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from llmock.pytest_plugin import LLMock

from inturn import OpenAIProvider
from inturn.agent.openai import Price
from inturn.errors import ProviderUnavailableError
from tests.asking import (
    APIS,
    REQUEST,
    WAYS,
    Api,
    Way,
    chunk,
    events,
    failure,
    heard,
    opening,
    piece,
    reply_of,
    whole,
)
from tests.servers_openai import Line, OwnServer

MODELS = ["gpt-a", "gpt-b", "gpt-c"]


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def provider(llmock: LLMock, api: Api) -> OpenAIProvider:
    return OpenAIProvider("gpt-a", backup_models=MODELS[1:], api=api)


def models_asked(llmock: LLMock) -> list[str]:
    return [each.body["model"] for each in llmock.requests]


def server_with(api: Api, **broken: Callable[[Line], None]) -> OwnServer:
    """A server where a model does what is told here, and the others answer."""

    def answer(line: Line) -> None:
        if (says := broken.get(line.body["model"])) is not None:
            says(line)
        elif line.body.get("stream"):
            line.streams()
            for each in events(api, '{"message": "hi"}'):
                line.event(each)
            line.ends()
        else:
            line.says(json.dumps(whole(api, '{"message": "hi"}')))

    return OwnServer(answer)


@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_the_next_model_is_asked_when_one_is_busy(
    llmock: LLMock, provider: OpenAIProvider, way: Way, status: int
) -> None:
    llmock.fail(status)
    llmock.reply('{"message": "hi"}')

    assert reply_of(provider, way=way).data == {"message": "hi"}

    first, second = (each.body for each in llmock.requests)
    assert second == {**first, "model": "gpt-b"}


def test_the_models_are_asked_in_turn_and_a_call_begins_with_the_first(
    llmock: LLMock, provider: OpenAIProvider, way: Way
) -> None:
    llmock.fail(500, times=2)

    reply_of(provider, way=way)
    reply_of(provider, way=way)

    assert models_asked(llmock) == ["gpt-a", "gpt-b", "gpt-c", "gpt-a"]


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_request_that_is_refused_is_refused_by_all(
    llmock: LLMock, provider: OpenAIProvider, way: Way, status: int
) -> None:
    llmock.fail(status)

    assert not failure(provider, way=way).retryable
    assert models_asked(llmock) == ["gpt-a"]


def test_a_refusal_of_the_model_is_an_answer(llmock: LLMock, provider: OpenAIProvider, way: Way) -> None:
    llmock.reply("I will not.")

    assert "not JSON" in str(failure(provider, way=way))
    assert models_asked(llmock) == ["gpt-a"]


class TestStreams:
    @pytest.mark.parametrize("fault", ["truncate", "disconnect", "corrupt"])
    def test_before_the_first_piece_the_next_model_may_take_over(
        self, llmock: LLMock, provider: OpenAIProvider, fault: str
    ) -> None:
        getattr(llmock, fault)(after_chunks=1)
        llmock.reply('{"message": "hi"}', times=2)

        pieces, reply = heard(provider.stream(REQUEST))

        assert "".join(pieces) == '{"message": "hi"}'
        assert reply.data == {"message": "hi"}
        assert models_asked(llmock) == ["gpt-a", "gpt-b"]

    def test_after_it_nobody_may(self, api: Api) -> None:
        def breaks_off(line: Line) -> None:
            line.streams()
            line.event(opening(api))
            line.event(piece(api, '{"message": "Hel'))

        with server_with(api, **{"gpt-a": breaks_off}) as server:
            provider = OpenAIProvider("gpt-a", backup_models=["gpt-b"], api=api, base_url=server.url)
            stream = provider.stream(REQUEST)

            assert next(stream) == '{"message": "Hel'
            with pytest.raises(ProviderUnavailableError):
                next(stream)
            assert [line.body["model"] for line in server.lines] == ["gpt-a"]

    def test_half_a_call_of_a_tool_was_told_to_nobody(self) -> None:
        def breaks_off(line: Line) -> None:
            line.streams()
            function = {"name": "look_up", "arguments": '{"na'}
            line.event(chunk(tool_calls=[{"index": 0, "id": "c", "function": function}]))

        with server_with("chat", **{"gpt-a": breaks_off}) as server:
            provider = OpenAIProvider("gpt-a", backup_models=["gpt-b"], api="chat", base_url=server.url)
            reply = reply_of(provider, way="stream")

        assert (reply.data, reply.tool_calls) == ({"message": "hi"}, ())


class TestWhenNobodyAnswers:
    def test_the_error_names_all_and_waits_for_the_soonest(
        self, llmock: LLMock, provider: OpenAIProvider, way: Way
    ) -> None:
        llmock.fail(429, retry_after=30, model="gpt-a")
        llmock.fail(503, retry_after=7, model="gpt-b")
        llmock.fail(500, model="gpt-c")

        error = failure(provider, way=way)

        assert isinstance(error, ProviderUnavailableError)
        assert error.retry_after == 7
        assert [f"'{model}': " in str(error) for model in MODELS] == [True] * 3
        assert "HTTP 429" in str(error)
        assert models_asked(llmock) == MODELS

    def test_a_backup_that_is_not_there_hides_neither_the_next_nor_that_it_may_be_repeated(
        self, llmock: LLMock, provider: OpenAIProvider, way: Way
    ) -> None:
        llmock.fail(429, times=None, model="gpt-a")
        llmock.fail(404, times=None, model="gpt-b")
        llmock.fail(500, times=1, model="gpt-c")

        error = failure(provider, way=way)

        assert isinstance(error, ProviderUnavailableError)
        assert "'gpt-b': the provider refused the request (HTTP 404" in str(error)
        assert reply_of(provider, way=way).data
        assert models_asked(llmock) == MODELS * 2

    def test_one_model_alone_speaks_for_itself(self, llmock: LLMock, way: Way) -> None:
        llmock.fail(429, retry_after=3)

        error = failure(OpenAIProvider("gpt-a"), way=way)

        assert str(error) == "the provider cannot answer now (HTTP 429, rate_limit_exceeded)"


def test_the_price_is_that_of_the_model_that_answered(llmock: LLMock, api: Api, way: Way) -> None:
    llmock.fail(429)
    prices = {"gpt-a": Price(input=1e6, output=1e6), "gpt-b": Price(input=1e6, output=0)}
    provider = OpenAIProvider("gpt-a", backup_models=["gpt-b"], api=api, prices=prices)

    usage = reply_of(provider, way=way).usage

    assert usage.calls == 1
    assert usage.output_tokens > 0
    assert usage.cost == usage.input_tokens
