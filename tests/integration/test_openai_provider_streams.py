"""OpenAIProvider's streams: pieces as they come, the whole at the end, and never half an answer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from llmock.pytest_plugin import LLMock

from inturn import OpenAIProvider
from inturn.errors import ProviderUnavailableError
from tests.asking import (
    APIS,
    REQUEST,
    SECRET,
    Api,
    chunk,
    ending,
    events,
    failure,
    heard,
    message,
    opening,
    piece,
    reply_of,
    response,
)
from tests.servers_openai import PATIENCE, Line, OwnServer
from tests.waiting import wait_until

ANSWER = '{"message": "Good dog, Rex! Sit."}'


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def provider(llmock: LLMock, api: Api) -> OpenAIProvider:
    return OpenAIProvider("gpt-test", api=api)


def clocks() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if isinstance(each, threading.Timer)]


def server_that_streams(*said: Any, ends: bool = True) -> OwnServer:
    def answer(line: Line) -> None:
        line.streams()
        for each in said:
            line.event(each)
        if ends:
            line.ends()

    return OwnServer(answer)


class TestPieces:
    def test_joined_they_are_the_text_of_the_whole_answer(
        self, llmock: LLMock, provider: OpenAIProvider
    ) -> None:
        llmock.reply(ANSWER)

        pieces, reply = heard(provider.stream(REQUEST))

        assert len(pieces) > 2
        assert "".join(pieces) == ANSWER
        assert reply.data == {"message": "Good dog, Rex! Sit."}
        assert reply.finish_reason == "stop"

    def test_they_come_while_the_model_still_writes(self, api: Api) -> None:
        was_read = threading.Event()

        def answer(line: Line) -> None:
            line.streams()
            line.event(opening(api))
            line.event(piece(api, '{"message": '))
            assert was_read.wait(PATIENCE)
            line.event(piece(api, '"hi"}'))
            for each in ending(api, '{"message": "hi"}'):
                line.event(each)
            line.ends()

        with OwnServer(answer) as server:
            stream = OpenAIProvider("m", api=api, base_url=server.url).stream(REQUEST)
            assert next(stream) == '{"message": '
            was_read.set()
            pieces, reply = heard(stream)

        assert pieces == ['"hi"}']
        assert reply.data == {"message": "hi"}

    def test_nothing_is_sent_before_the_first_is_wanted(
        self, llmock: LLMock, provider: OpenAIProvider
    ) -> None:
        provider.stream(REQUEST).close()

        assert llmock.requests == []

    def test_a_server_that_tells_no_usage_will_do(self, api: Api) -> None:
        with server_that_streams(*events(api, '{"message": "hi"}')) as server:
            reply = reply_of(OpenAIProvider("m", api=api, base_url=server.url), way="stream")

        assert reply.data == {"message": "hi"}
        assert (reply.usage.calls, reply.usage.input_tokens) == (1, 0)

    def test_reasoning_is_not_part_of_the_text(self) -> None:
        thoughts = [chunk(reasoning_content="They have a dog."), chunk(reasoning_content="Be kind.")]
        with server_that_streams(*thoughts, *events("chat", '{"message": "hi"}')) as server:
            pieces, _ = heard(OpenAIProvider("m", api="chat", base_url=server.url).stream(REQUEST))

        assert pieces == ['{"message": "hi"}']


class TestStreamsThatBreak:
    @pytest.mark.parametrize("after", [0, 1, 3, 6])
    def test_one_that_ends_too_early_is_no_answer(
        self, llmock: LLMock, provider: OpenAIProvider, after: int
    ) -> None:
        llmock.reply(ANSWER).truncate(after_chunks=after)

        error = failure(provider, way="stream")

        assert isinstance(error, ProviderUnavailableError)
        assert "the answer broke off" in str(error)
        reply_of(provider, way="stream")  # as the turn does that is taken again
        llmock.assert_resilient()

    def test_nor_is_one_whose_text_was_complete(self, api: Api) -> None:
        # All but the words that say so: the model may have had more to say.
        with server_that_streams(opening(api), piece(api, '{"message": "hi"}')) as server:
            error = failure(OpenAIProvider("m", api=api, base_url=server.url), way="stream")

        assert isinstance(error, ProviderUnavailableError)
        assert "the answer broke off" in str(error)

    @pytest.mark.parametrize("after", [1, 3, 6])
    def test_one_whose_connection_is_lost_may_be_repeated(
        self, llmock: LLMock, provider: OpenAIProvider, after: int
    ) -> None:
        llmock.reply(ANSWER).disconnect(after_chunks=after)

        error = failure(provider, way="stream")

        assert isinstance(error, ProviderUnavailableError)
        assert "connection" in str(error)
        reply_of(provider, way="stream")
        llmock.assert_resilient()

    @pytest.mark.parametrize("after", [0, 3])
    def test_one_that_arrives_garbled_may_be_repeated(
        self, llmock: LLMock, provider: OpenAIProvider, after: int
    ) -> None:
        llmock.reply(ANSWER).corrupt(after_chunks=after)

        error = failure(provider, way="stream")

        assert isinstance(error, ProviderUnavailableError)
        assert "garbled (JSONDecodeError)" in str(error)
        reply_of(provider, way="stream")
        llmock.assert_resilient()

    def test_events_of_another_api_are_told(self) -> None:
        with server_that_streams(*events("chat", '{"message": "hi"}')) as server:
            error = failure(OpenAIProvider("m", base_url=server.url), way="stream")

        assert "has not the form of 'responses'; check base_url and api" in str(error)


FAILED = {"code": "server_error", "message": SECRET}


class TestFaultsInTheMiddle:
    @pytest.mark.parametrize(
        ("last", "told", "retryable"),
        [
            (
                {"type": "response.failed", "response": response(status="failed", error=FAILED)},
                "(server_error)",
                True,
            ),
            (
                {
                    "type": "response.incomplete",
                    "response": response(
                        status="incomplete", incomplete_details={"reason": "max_output_tokens"}
                    ),
                },
                "cut off (max_output_tokens)",
                False,
            ),
            (
                {
                    "type": "response.completed",
                    "response": response(message({"type": "refusal", "refusal": SECRET})),
                },
                "the model refused to answer",
                False,
            ),
            (
                {"type": "error", "code": "rate_limit_exceeded", "message": SECRET},
                "(rate_limit_exceeded)",
                True,
            ),
            ({"type": "error", "code": "invalid_prompt", "message": SECRET}, "(invalid_prompt)", False),
            ({"type": "error", "code": None, "message": SECRET}, "failed to answer", True),
            ({"type": "error", "error": FAILED}, "(server_error)", True),
        ],
    )
    def test_those_of_a_response_are_told(self, last: dict[str, Any], told: str, retryable: bool) -> None:
        with server_that_streams(opening("responses"), piece("responses", '{"me'), last) as server:
            error = failure(OpenAIProvider("m", base_url=server.url), way="stream")

        assert told in str(error)
        assert error.retryable is retryable

    @pytest.mark.parametrize(
        ("last", "told", "retryable"),
        [
            (chunk("length"), "cut off (length)", False),
            (chunk("content_filter"), "content filter", False),
            (chunk("stop", refusal=SECRET), "the model refused to answer", False),
            ({"error": FAILED}, "(server_error)", True),
            ({"error": {"code": 502, "message": SECRET}}, "(502)", True),
            ({"error": {"code": 400, "message": SECRET}}, "(400)", False),
            ({"error": {"type": "overloaded_error", "message": SECRET}}, "(overloaded_error)", True),
            ({"error": {"message": SECRET}}, "failed to answer", True),
        ],
    )
    def test_those_of_a_completion_are_told(self, last: dict[str, Any], told: str, retryable: bool) -> None:
        with server_that_streams(opening("chat"), piece("chat", '{"me'), last) as server:
            error = failure(OpenAIProvider("m", api="chat", base_url=server.url), way="stream")

        assert told in str(error)
        assert error.retryable is retryable


class TestClosing:
    def test_a_stream_that_is_closed_early_ends_the_call(self, api: Api) -> None:
        left = list[bool]()
        told = threading.Event()

        def answer(line: Line) -> None:
            line.streams()
            line.event(opening(api))
            line.event(piece(api, '{"message": '))
            if len(server.lines) == 1:
                left.append(line.is_closed_by_client())
                told.set()
                return
            for each in [piece(api, '"hi"}'), *ending(api, '{"message": "hi"}')]:
                line.event(each)
            line.ends()

        with OwnServer(answer) as server:
            provider = OpenAIProvider("m", api=api, base_url=server.url)
            stream = provider.stream(REQUEST)
            next(stream)
            assert not told.is_set()
            stream.close()

            assert told.wait(PATIENCE)
            assert left == [True]
            assert reply_of(provider, way="stream").data == {"message": "hi"}
            assert len({line.port for line in server.lines}) == 2

    def test_a_stream_that_came_to_its_end_leaves_its_connection_to_the_next(self) -> None:
        with server_that_streams(*events("responses", '{"message": "hi"}')) as server:
            provider = OpenAIProvider("m", base_url=server.url)
            for _ in range(3):
                reply_of(provider, way="stream")

            assert len({line.port for line in server.lines}) == 1

    def test_no_clock_is_left_running(self, llmock: LLMock, provider: OpenAIProvider) -> None:
        stream = provider.stream(REQUEST)
        next(stream)
        assert clocks()

        stream.close()
        failure(OpenAIProvider("m", base_url="http://127.0.0.1:9/v1"), way="stream")
        reply_of(provider, way="stream")

        wait_until(lambda: not clocks(), what="the clocks to stop")
