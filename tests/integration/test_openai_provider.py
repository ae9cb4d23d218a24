"""OpenAIProvider: what is asked, what comes back, and what goes wrong, whether streamed or not."""

from __future__ import annotations

import datetime as dt
import json
from email.utils import format_datetime
from typing import Any, Literal

import pytest
from llmock.pytest_plugin import LLMock
from llmock.scenarios import Reply as Scripted
from pydantic import BaseModel, Field

from inturn import Agent, OpenAIProvider, Route, Step
from inturn.agent import ModelRequest
from inturn.agent.openai import Price
from inturn.agent.schema import Schema
from inturn.errors import ProviderUnavailableError
from inturn.persistence import MemoryAdapter
from inturn.session.state import HistoryItem
from tests.asking import (
    APIS,
    REQUEST,
    SECRET,
    WAYS,
    Api,
    Way,
    asked,
    completion,
    failure,
    message,
    reply_of,
    response,
    whole,
)
from tests.servers_openai import OwnServer


class Order(BaseModel):
    item: str
    count: int = Field(ge=1)
    day: dt.date
    size: Literal["small", "large"]


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def provider(llmock: LLMock, api: Api) -> OpenAIProvider:
    return OpenAIProvider("gpt-test", api=api)


def server_that_says(body: str | dict[str, Any], **how: Any) -> OwnServer:
    text = body if isinstance(body, str) else json.dumps(body)
    return OwnServer(lambda line: line.says(text, **how))


class TestWhatIsAsked:
    def test_the_conversation_and_the_schema_are_sent(self, llmock: LLMock) -> None:
        OpenAIProvider("gpt-test", max_output_tokens=100).generate(REQUEST)

        body = llmock.last_request.body
        assert llmock.last_request.path == "/v1/responses"
        assert body["model"] == "gpt-test"
        assert body["instructions"] == "You are kind."
        assert body["input"] == [{"role": line.role, "content": line.content} for line in REQUEST.messages]
        assert body["text"]["format"]["strict"] is True
        assert body["text"]["format"]["schema"]["required"] == ["message"]
        assert body["max_output_tokens"] == 100
        assert body["store"] is False
        assert "tools" not in body

    def test_the_same_is_sent_to_chat_completions(self, llmock: LLMock) -> None:
        OpenAIProvider("gpt-test", api="chat", max_output_tokens=100).generate(REQUEST)

        body = llmock.last_request.body
        assert llmock.last_request.path == "/v1/chat/completions"
        assert body["messages"][0] == {"role": "system", "content": "You are kind."}
        assert body["messages"][-1] == {"role": "user", "content": SECRET}
        assert body["response_format"]["json_schema"]["strict"] is True
        assert body["max_completion_tokens"] == 100
        assert "tools" not in body

    def test_a_stream_is_asked_for_in_the_same_words(self, llmock: LLMock, provider: OpenAIProvider) -> None:
        for way in WAYS:
            reply_of(provider, way=way)

        plain, streamed = (each.body for each in llmock.requests)
        streamed.pop("stream_options", None)
        assert streamed == {**plain, "stream": True}

    def test_lines_that_say_nothing_are_left_out(self, llmock: LLMock, provider: OpenAIProvider) -> None:
        said, stopped = HistoryItem(role="user", content="hi"), HistoryItem(role="assistant", content=" ")

        provider.generate(asked(said, stopped, said))

        body = llmock.last_request.body
        lines = body.get("input") or body["messages"][1:]
        assert lines == [{"role": "user", "content": "hi"}] * 2

    def test_images_stand_beside_the_text_of_a_user(
        self, llmock: LLMock, provider: OpenAIProvider, api: Api
    ) -> None:
        urls = ["https://example.com/rex.jpg", "data:image/png;base64,iVBORw0KGgo="]

        provider.generate(
            asked(
                HistoryItem(role="user", content="Who is this?", images=urls),
                HistoryItem(role="user", content="", images=urls[:1]),
            )
        )

        body = llmock.last_request.body
        if api == "responses":
            both, alone = body["input"]
            words: Any = {"type": "input_text", "text": "Who is this?"}
            pictures: list[dict[str, Any]] = [
                {"type": "input_image", "image_url": url, "detail": "auto"} for url in urls
            ]
        else:
            _, both, alone = body["messages"]
            words = {"type": "text", "text": "Who is this?"}
            pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        assert both == {"role": "user", "content": [words, *pictures]}
        assert alone == {"role": "user", "content": pictures[:1]}


class TestWhatComesBack:
    def test_a_reply_is_json_with_its_usage(self, llmock: LLMock, provider: OpenAIProvider, way: Way) -> None:
        llmock.reply('{"message": "Good dog!"}')

        reply = reply_of(provider, way=way)

        assert reply.data == {"message": "Good dog!"}
        assert reply.finish_reason == "stop"
        assert reply.tool_calls == ()
        assert reply.usage.calls == 1
        assert reply.usage.input_tokens > 0
        assert reply.usage.output_tokens > 0
        assert reply.usage.cost is None

    def test_an_answer_made_from_the_schema_fills_every_field(
        self, provider: OpenAIProvider, way: Way
    ) -> None:
        schema = Schema(Order)
        request = ModelRequest(instructions="x", messages=REQUEST.messages, output=schema.output(["a"]))

        reply = reply_of(provider, request, way)

        accepted = schema.accept(reply.data)
        assert set(accepted.values) == set(Order.model_fields)
        assert accepted.refused == {}
        assert reply.data["next_step"] == "a"

    @pytest.mark.parametrize(
        ("price", "cost"),
        [
            (Price(input=2.0, cached_input=0.5, output=10.0), 0.0128),
            (Price(input=2.0, output=10.0), 0.014),
        ],
    )
    def test_tokens_that_were_cached_are_counted_and_cost_less(
        self, api: Api, price: Price, cost: float
    ) -> None:
        counted = {"total_tokens": 5800}
        if api == "responses":
            counted |= {"input_tokens": 5000, "output_tokens": 400}
            counted["input_tokens_details"] = {"cached_tokens": 800}  # type: ignore[assignment]
        else:
            counted |= {"prompt_tokens": 5000, "completion_tokens": 400}
            counted["prompt_tokens_details"] = {"cached_tokens": 800}  # type: ignore[assignment]
        with server_that_says({**whole(api, '{"message": "hi"}'), "usage": counted}) as server:
            provider = OpenAIProvider("m", api=api, base_url=server.url, prices={"m": price})

            usage = provider.generate(REQUEST).usage

        assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (5000, 800, 400)
        assert usage.cost == pytest.approx(cost)

    def test_a_server_without_usage_will_do(self, api: Api) -> None:
        with server_that_says(whole(api, '{"message": "hi"}')) as server:
            provider = OpenAIProvider(
                "m", api=api, base_url=server.url, prices={"m": Price(input=1, output=1)}
            )

            reply = provider.generate(REQUEST)

        assert (reply.data, reply.usage.input_tokens) == ({"message": "hi"}, 0)

    def test_an_agent_holds_a_conversation_through_it(self, llmock: LLMock, provider: OpenAIProvider) -> None:
        llmock.reply('{"item": null, "next_step": "item", "message": "What would you like?"}')
        llmock.reply('{"item": "tea", "next_step": "done", "message": "Tea it is."}')
        agent = Agent(
            "Shop",
            provider=provider,
            schema=Order,
            routes=[Route("Order", steps=[Step("What?", collect=["item"])])],
            persistence=MemoryAdapter(),
        )

        assert agent.respond("hi").message == "What would you like?"
        answer = agent.respond("tea")

        assert (answer.message, answer.data, answer.is_route_complete) == (
            "Tea it is.",
            {"item": "tea"},
            True,
        )
        assert len(llmock.requests) == 2


class TestWhatGoesWrong:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
    def test_a_provider_that_is_busy_may_be_asked_later(
        self, llmock: LLMock, provider: OpenAIProvider, way: Way, status: int
    ) -> None:
        llmock.fail(status, message=f"cannot say: {SECRET}")

        error = failure(provider, way=way)

        assert isinstance(error, ProviderUnavailableError)
        assert str(status) in str(error)
        assert len(llmock.requests) == 1, "the worker's back-off is the retry"

    def test_retry_after_is_told(self, llmock: LLMock, provider: OpenAIProvider, way: Way) -> None:
        llmock.rate_limit(retry_after=7)

        error = failure(provider, way=way)

        assert isinstance(error, ProviderUnavailableError)
        assert error.retry_after == 7

    def test_retry_after_may_be_a_date(self) -> None:
        later = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(minutes=2), usegmt=True)
        with server_that_says("{}", status=503, retry_after=later) as server:
            error = failure(OpenAIProvider("m", base_url=server.url))

        assert isinstance(error, ProviderUnavailableError)
        assert error.retry_after is not None
        assert 60 < error.retry_after <= 120

    @pytest.mark.parametrize("value", ["soon", "-5", "nan", "inf"])
    def test_a_retry_after_that_says_nothing_is_ignored(self, value: str) -> None:
        with server_that_says("{}", status=429, retry_after=value) as server:
            error = failure(OpenAIProvider("m", base_url=server.url))

        assert isinstance(error, ProviderUnavailableError)
        assert error.retry_after is None

    @pytest.mark.parametrize(
        ("status", "told"), [(400, "HTTP 400, bad"), (401, "OPENAI_API_KEY"), (404, "HTTP 404")]
    )
    def test_a_request_that_is_refused_is_not_to_be_repeated(
        self, llmock: LLMock, provider: OpenAIProvider, way: Way, status: int, told: str
    ) -> None:
        llmock.fail(status, code="bad", message=f"cannot say: {SECRET}")

        error = failure(provider, way=way)

        assert not error.retryable
        assert told in str(error)

    def test_a_code_that_is_free_text_is_not_told(self, llmock: LLMock, provider: OpenAIProvider) -> None:
        llmock.fail(400, code=SECRET)

        assert str(failure(provider)) == "the provider refused the request (HTTP 400)"

    def test_a_provider_that_is_not_there_may_be_asked_later(self, api: Api, way: Way) -> None:
        error = failure(OpenAIProvider("gpt-test", api=api, base_url="http://127.0.0.1:9/v1"), way=way)

        assert isinstance(error, ProviderUnavailableError)
        assert "ConnectError" in str(error)

    def test_a_connection_that_is_lost_in_the_middle_may_be_made_again(self, api: Api, way: Way) -> None:
        with OwnServer(lambda line: line.breaks_off()) as server:
            error = failure(OpenAIProvider("m", api=api, base_url=server.url), way=way)

        assert isinstance(error, ProviderUnavailableError)

    def test_so_it_is_if_it_is_lost_in_the_middle_of_an_error(self, api: Api, way: Way) -> None:
        with OwnServer(lambda line: line.breaks_off(status=503)) as server:
            error = failure(OpenAIProvider("m", api=api, base_url=server.url), way=way)

        assert isinstance(error, ProviderUnavailableError)

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            ("Good dog!", "not JSON"),
            ('{"message": "Go', "not JSON"),
            ("", "not JSON"),
            ('["a"]', "not a JSON object but list"),
        ],
    )
    def test_an_answer_that_is_not_the_json_asked_for_is_an_error(
        self, llmock: LLMock, provider: OpenAIProvider, way: Way, said: str, told: str
    ) -> None:
        llmock.reply(said)

        error = failure(provider, way=way)

        assert told in str(error)
        assert not error.retryable

    def test_an_answer_that_was_cut_off_is_an_error_even_if_it_can_be_read(
        self, llmock: LLMock, provider: OpenAIProvider, way: Way
    ) -> None:
        llmock.add(Scripted(text='{"message": "Good"}', finish_reason="length"))

        error = failure(provider, way=way)

        assert "cut off" in str(error)
        assert not error.retryable

    def test_a_content_filter_is_told(self, llmock: LLMock, way: Way) -> None:
        llmock.add(Scripted(text='{"message": ""}', finish_reason="content_filter"))

        assert "content filter" in str(failure(OpenAIProvider("gpt-test", api="chat"), way=way))

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            (response(message({"type": "refusal", "refusal": SECRET})), "the model refused to answer"),
            (response(incomplete_details={"reason": "content_filter"}), "content filter"),
            (response(incomplete_details={"reason": "max_output_tokens"}), "cut off (max_output_tokens)"),
            (
                response(status="failed", error={"code": "invalid_prompt", "message": SECRET}),
                "(invalid_prompt)",
            ),
            ({"object": "list"}, "has not the form of 'responses'; check base_url and api"),
            ("{", "could not be read"),
        ],
    )
    def test_other_faults_of_a_response_are_told(self, answer: str | dict[str, Any], told: str) -> None:
        with server_that_says(answer) as server:
            error = failure(OpenAIProvider("m", base_url=server.url))

        assert told in str(error)
        assert not error.retryable

    @pytest.mark.parametrize("fault", [{"error": {"code": "server_error", "message": SECRET}}, {}])
    def test_a_response_that_failed_on_the_providers_side_may_be_repeated(
        self, fault: dict[str, Any]
    ) -> None:
        with server_that_says(response(status="failed", **fault)) as server:
            assert failure(OpenAIProvider("m", base_url=server.url)).retryable

    @pytest.mark.parametrize(
        ("said", "told"),
        [({"content": None, "refusal": SECRET}, "refused to answer"), ({"content": None}, "not JSON")],
    )
    def test_other_faults_of_a_completion_are_told(self, said: dict[str, Any], told: str) -> None:
        with server_that_says(completion(**said)) as server:
            assert told in str(failure(OpenAIProvider("m", base_url=server.url, api="chat")))

    @pytest.mark.parametrize("content_type", ["text/html", "application/json"])
    def test_a_page_instead_of_an_answer_points_at_the_base_url(
        self, api: Api, way: Way, content_type: str
    ) -> None:
        with server_that_says("<html>Welcome!</html>", content_type=content_type) as server:
            error = failure(OpenAIProvider("m", base_url=server.url, api=api), way=way)

        assert "base_url" in str(error) or "could not be read" in str(error)
        assert not error.retryable
