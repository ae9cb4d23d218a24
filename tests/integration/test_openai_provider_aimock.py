"""OpenAIProvider against aimock: conversations over several turns, word for word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from inturn import Agent, OpenAIProvider
from inturn.agent.provider import ModelRequest, ToolCall, ToolRound, ToolSpec
from inturn.errors import ProviderUnavailableError
from inturn.persistence import MemoryAdapter
from inturn.session.state import HistoryItem
from tests.asking import APIS, WAYS, Api, Way, asked, failure, heard, reply_of
from tests.servers_aimock import Aimock, aimock


class LookUp(BaseModel):
    name: str


LOOK_UP = ToolSpec("look_up", "Look somebody up.", LookUp.model_json_schema())
QUESTION = HistoryItem(role="user", content="Who is Ada?")
ANSWER = json.dumps({"message": "Ada is a countess; her notes on an engine are well known."})


@pytest.fixture(scope="module")
def server() -> Iterator[Aimock]:
    with aimock() as server:
        yield server


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def provider(server: Aimock, api: Api) -> OpenAIProvider:
    return OpenAIProvider("gpt-test", api=api, base_url=server.base_url)


def match(*, response: dict[str, Any], **how: Any) -> dict[str, Any]:
    fixture = {"match": how, "response": response}
    for option in {"chunkSize", "truncateAfterChunks"} & how.keys():
        fixture[option] = how.pop(option)
    return fixture


def ada(*rounds: ToolRound) -> ModelRequest:
    return asked(QUESTION, tools=(LOOK_UP,), rounds=rounds)


def test_a_conversation_goes_through_two_rounds_of_tools(
    server: Aimock, provider: OpenAIProvider, way: Way
) -> None:
    def calls(id: str, name: str) -> dict[str, Any]:
        return {"toolCalls": [{"id": id, "name": "look_up", "arguments": json.dumps({"name": name})}]}

    server.says(
        match(toolCallId="call_2", toolResultContains="countess", response={"content": ANSWER}),
        match(toolCallId="call_1", toolResultContains="nobody", response=calls("call_2", "Ada Lovelace")),
        match(userMessage="Who is Ada?", hasToolResult=False, response=calls("call_1", "Ada")),
    )

    first = reply_of(provider, ada(), way)
    one = ToolRound(first.tool_calls, ("nobody",))
    second = reply_of(provider, ada(one), way)
    two = ToolRound(second.tool_calls, ("a countess",))
    third = reply_of(provider, ada(one, two), way)

    assert first.tool_calls == (ToolCall("call_1", "look_up", '{"name": "Ada"}'),)
    assert (first.data, first.finish_reason) == ({}, "tool_calls")
    assert second.tool_calls == (ToolCall("call_2", "look_up", '{"name": "Ada Lovelace"}'),)
    assert third.data == json.loads(ANSWER)
    assert third.finish_reason == "stop"


def test_an_agent_calls_a_tool_and_tells_what_it_learned(
    server: Aimock, provider: OpenAIProvider, way: Way
) -> None:
    def look_up(name: str) -> str:
        """Look somebody up."""
        return f"{name} is a countess"

    arguments = json.dumps({"name": "Ada"})
    server.says(
        match(toolCallId="call_1", toolResultContains="Ada is a countess", response={"content": ANSWER}),
        match(
            userMessage="Who is Ada?",
            response={"toolCalls": [{"id": "call_1", "name": "look_up", "arguments": arguments}]},
        ),
    )
    agent = Agent("Guide", provider=provider, tools=[look_up], persistence=MemoryAdapter())

    if way == "stream":
        said = "".join(piece.text for piece in agent.stream("Who is Ada?"))
    else:
        said = agent.respond("Who is Ada?").message

    assert said == json.loads(ANSWER)["message"]
    assert len(server.requests) == 2


def test_the_calls_of_an_earlier_turn_are_part_of_the_conversation(
    server: Aimock, provider: OpenAIProvider, way: Way
) -> None:
    server.says(match(userMessage="And her mother?", response={"content": ANSWER}))
    call = {"id": "call_1", "name": "look_up", "arguments": '{"name": "Ada"}'}

    reply_of(
        provider,
        asked(
            QUESTION,
            HistoryItem(role="tool", name="look_up", content="a countess", tool_calls=[call]),
            HistoryItem(role="assistant", content="She is a countess."),
            HistoryItem(role="user", content="And her mother?"),
        ),
        way,
    )

    (body,) = server.requests
    system, user, called, output, assistant, last = body["messages"]
    assert (system["role"], system["content"]) == ("system", "You are kind.")
    assert (user["role"], user["content"]) == ("user", "Who is Ada?")
    assert called["tool_calls"][0]["id"] == "call_1"
    assert called["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"name": "Ada"}'}
    assert (output["role"], output["tool_call_id"], output["content"]) == ("tool", "call_1", "a countess")
    assert (assistant["role"], assistant["content"]) == ("assistant", "She is a countess.")
    assert (last["role"], last["content"]) == ("user", "And her mother?")


def test_a_stream_comes_in_the_pieces_that_were_sent(server: Aimock, provider: OpenAIProvider) -> None:
    server.says(match(userMessage="Ada", chunkSize=7, response={"content": ANSWER}))

    pieces, reply = heard(provider.stream(ada()))

    assert pieces == [ANSWER[start : start + 7] for start in range(0, len(ANSWER), 7)]
    assert reply.data == json.loads(ANSWER)


def test_the_usage_of_a_stream_is_that_which_was_sent(
    server: Aimock, provider: OpenAIProvider, api: Api, way: Way
) -> None:
    names = (
        ("input_tokens", "output_tokens") if api == "responses" else ("prompt_tokens", "completion_tokens")
    )
    usage = dict(zip(names, (321, 45), strict=True))
    server.says(match(userMessage="Ada", response={"content": ANSWER, "usage": usage}))

    reply = reply_of(provider, ada(), way)

    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (321, 45)


def test_text_may_come_before_and_after_a_call(server: Aimock, provider: OpenAIProvider, way: Way) -> None:
    blocks = [
        {"type": "text", "text": "Let me see. "},
        {"type": "toolCall", "id": "call_1", "name": "look_up", "arguments": '{"name": "Ada"}'},
        {"type": "text", "text": "One moment."},
    ]
    server.says(match(userMessage="Ada", response={"blocks": blocks}))

    reply = reply_of(provider, ada(), way)

    assert reply.tool_calls == (ToolCall("call_1", "look_up", '{"name": "Ada"}'),)
    assert reply.data == {}


def test_a_call_that_breaks_off_is_no_call(server: Aimock, provider: OpenAIProvider) -> None:
    calls = [{"id": "call_1", "name": "look_up", "arguments": json.dumps({"name": "Ada " * 30})}]
    server.says(match(userMessage="Ada", truncateAfterChunks=4, response={"toolCalls": calls}))

    assert isinstance(failure(provider, ada(), "stream"), ProviderUnavailableError)


def test_an_error_of_the_server_is_told_with_its_wait(
    server: Aimock, provider: OpenAIProvider, way: Way
) -> None:
    error = {"error": {"message": "Slow down", "type": "rate_limit_error"}, "status": 429, "retryAfter": 9}
    server.says(match(userMessage="Ada", response=error))

    raised = failure(provider, ada(), way)

    assert isinstance(raised, ProviderUnavailableError)
    assert raised.retry_after == 9


def test_images_do_not_hide_the_words_beside_them(server: Aimock, provider: OpenAIProvider) -> None:
    server.says(match(userMessage="Who is this?", response={"content": ANSWER}))
    picture = HistoryItem(role="user", content="Who is this?", images=["https://example.com/ada.jpg"])

    assert provider.generate(asked(picture)).data == json.loads(ANSWER)
