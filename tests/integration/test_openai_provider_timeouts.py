"""OpenAIProvider's time-outs, each against a server that is slow in its own way."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from llmock.pytest_plugin import LLMock

from inturn import OpenAIProvider
from inturn.errors import ProviderUnavailableError
from tests.asking import (
    APIS,
    REQUEST,
    WAYS,
    Api,
    Way,
    chunk,
    ending,
    events,
    failure,
    heard,
    opening,
    piece,
    reply_of,
    whole,
)
from tests.servers_openai import Line, OwnServer

SHORT = 0.3
"""Seconds; every other time-out is too long for the test to wait for."""


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """The client loads much of itself with the first call and the first event, which may take a second."""
    for api in APIS:
        with server_that_streams(api) as server:
            reply_of(OpenAIProvider("m", api=api, base_url=server.url), way="stream")


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port that takes no connection: its queue is full, and further callers are left waiting."""
    callers = list[socket.socket]()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        for _ in range(20):
            caller = socket.socket()
            callers.append(caller)
            caller.settimeout(0.1)
            try:
                caller.connect(address)
            except TimeoutError:
                break
        else:
            pytest.skip("this system's queues are never full")
        yield address[1]
    for caller in callers:
        caller.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_takes_no_connection_is_given_up(full_port: int, api: Api, way: Way) -> None:
    url = f"http://127.0.0.1:{full_port}/v1"

    error = failure(OpenAIProvider("m", api=api, base_url=url, connect_timeout=SHORT), way=way)

    assert isinstance(error, ProviderUnavailableError)
    assert str(error) == "the provider took no connection within 0.3 seconds (connect_timeout)"


def test_a_server_that_says_nothing_is_given_up(llmock: LLMock, api: Api) -> None:
    llmock.delay(5)

    error = failure(OpenAIProvider("gpt-test", api=api, timeout=SHORT))

    assert isinstance(error, ProviderUnavailableError)
    assert str(error) == "the provider was silent for 0.3 seconds (timeout)"


def comments(line: Line, api: Api) -> None:
    while True:
        line.raw(": still there\n\n")
        line.waits(0.05)


def nothing(line: Line, api: Api) -> None:
    line.waits()


def opening_alone(line: Line, api: Api) -> None:
    line.event(opening(api))
    line.waits()


def text_without_end(line: Line, api: Api) -> None:
    for number in count():
        line.event(piece(api, f"{number} "))
        line.waits(0.05)


def text_then_nothing(line: Line, api: Api) -> None:
    line.event(piece(api, '{"message": "Good'))
    line.waits()


def text_then_comments(line: Line, api: Api) -> None:
    line.event(piece(api, '{"message": "Good'))
    comments(line, api)


def everything_but_the_end(line: Line, api: Api) -> None:
    for each in events(api, '{"message": "hi"}')[:-1]:
        line.event(each)
    line.waits()


Says = Callable[[Line, Api], None]


def server_that_streams(api: Api, *says: Says) -> OwnServer:
    """The first request is answered by the first of `says`, and so on; later ones as they should be."""

    def answer(line: Line) -> None:
        number = len(server.lines) - 1
        line.streams()
        if number < len(says):
            says[number](line, api)
            return
        for each in events(api, '{"message": "hi"}'):
            line.event(each)
        line.ends()

    server = OwnServer(answer)
    return server


class TestFirstToken:
    def test_a_stream_that_is_not_even_begun_is_given_up(self, api: Api) -> None:
        with OwnServer(lambda line: line.waits()) as server:
            provider = OpenAIProvider("m", api=api, base_url=server.url, first_token_timeout=SHORT)
            error = failure(provider, way="stream")

        assert isinstance(error, ProviderUnavailableError)
        assert str(error) == "the model did not begin to answer within 0.3 seconds (first_token_timeout)"

    def test_a_model_that_takes_too_long_is_given_up(self, llmock: LLMock, api: Api) -> None:
        llmock.slow_first_token(5)

        error = failure(OpenAIProvider("gpt-test", api=api, first_token_timeout=SHORT), way="stream")

        assert "(first_token_timeout)" in str(error)

    @pytest.mark.parametrize("says", [nothing, opening_alone, comments])
    def test_words_that_are_no_output_do_not_count(self, api: Api, says: Says) -> None:
        with server_that_streams(api, says) as server:
            provider = OpenAIProvider("m", api=api, base_url=server.url, first_token_timeout=SHORT)
            error = failure(provider, way="stream")

        assert isinstance(error, ProviderUnavailableError)
        assert "(first_token_timeout)" in str(error)

    def test_once_the_model_has_begun_a_pause_may_be_longer(self, api: Api) -> None:
        def pauses(line: Line, api: Api) -> None:
            line.event(piece(api, '{"message": '))
            line.waits(2 * SHORT)
            for each in [piece(api, '"hi"}'), *ending(api, '{"message": "hi"}')]:
                line.event(each)
            line.ends()

        with server_that_streams(api, pauses) as server:
            provider = OpenAIProvider("m", api=api, base_url=server.url, first_token_timeout=SHORT)
            pieces, reply = heard(provider.stream(REQUEST))

        assert pieces == ['{"message": ', '"hi"}']
        assert reply.data == {"message": "hi"}

    @pytest.mark.parametrize(
        ("api", "sign"),
        [
            ("chat", chunk(reasoning_content="Well, ")),
            ("chat", chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "look_up"}}])),
            ("responses", {"type": "response.output_item.added", "item": {"type": "reasoning", "id": "rs"}}),
        ],
    )
    def test_a_model_that_thinks_or_calls_a_tool_has_begun(self, api: Api, sign: dict[str, Any]) -> None:
        def thinks(line: Line, api: Api) -> None:
            line.event(opening(api))
            line.event(sign)
            line.waits()

        with server_that_streams(api, thinks) as server:
            error = failure(
                OpenAIProvider(
                    "m", api=api, base_url=server.url, first_token_timeout=10 * SHORT, timeout=11 * SHORT
                ),
                way="stream",
            )

        assert str(error) == "the answer was not complete within 3.3 seconds (timeout)"


class TestWholeCall:
    @pytest.mark.parametrize(
        ("api", "says"),
        [
            ("chat", text_without_end),
            ("responses", text_then_nothing),
            ("chat", text_then_comments),
            ("responses", everything_but_the_end),
            ("chat", everything_but_the_end),
        ],
    )
    def test_a_stream_that_is_not_done_in_time_is_ended(self, api: Api, says: Says) -> None:
        with server_that_streams(api, says) as server:
            error = failure(OpenAIProvider("m", api=api, base_url=server.url, timeout=SHORT), way="stream")

        assert isinstance(error, ProviderUnavailableError)
        assert str(error) == "the answer was not complete within 0.3 seconds (timeout)"

    def test_it_counts_from_the_call_on_and_is_told_if_it_is_the_shorter_one(self) -> None:
        with server_that_streams("chat", comments) as server:
            provider = OpenAIProvider("m", api="chat", base_url=server.url, timeout=SHORT)
            error = failure(provider, way="stream")

        assert str(error) == "the model did not begin to answer within 0.3 seconds (timeout)"

    def test_what_was_said_until_then_was_heard(self) -> None:
        with server_that_streams("chat", text_then_nothing) as server:
            provider = OpenAIProvider("m", api="chat", base_url=server.url, timeout=SHORT)
            stream = provider.stream(REQUEST)

            assert next(stream) == '{"message": "Good'
            with pytest.raises(ProviderUnavailableError):
                next(stream)

    def test_the_next_call_is_not_touched(self) -> None:
        with server_that_streams("chat", text_then_comments) as server:
            provider = OpenAIProvider("m", api="chat", base_url=server.url, timeout=4 * SHORT)
            failure(provider, way="stream")

            assert reply_of(provider, way="stream").data == {"message": "hi"}


@pytest.mark.parametrize("way", WAYS)
def test_a_backup_model_has_all_the_time_anew(api: Api, way: Way) -> None:
    def answer(line: Line) -> None:
        if line.body["model"] == "slow":
            line.waits()
        elif way == "stream":
            line.streams()
            for each in events(api, '{"message": "hi"}'):
                line.event(each)
            line.ends()
        else:
            line.says(json.dumps(whole(api, '{"message": "hi"}')))

    with OwnServer(answer) as server:
        provider = OpenAIProvider(
            "slow", backup_models=["quick"], api=api, base_url=server.url, timeout=2 * SHORT
        )
        reply = reply_of(provider, way=way)

    assert reply.data == {"message": "hi"}
