"""OpenAIProvider and tools: how they are offered, called, and told of."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from llmock.pytest_plugin import LLMock
from llmock.scenarios import Reply as Scripted
from llmock.scenarios import ToolCall as ScriptedCall
from pydantic import BaseModel, Field

from inturn import OpenAIProvider
from inturn.agent.provider import ToolCall, ToolRound, ToolSpec
from inturn.session.state import HistoryItem
from tests.asking import APIS, WAYS, Api, Way, asked, chunk, completion, heard, reply_of
from tests.servers_openai import Line, OwnServer


class LookUp(BaseModel):
    name: Annotated[str, Field(description="Whom to look up.")]
    city: str | None = None


class Search(BaseModel):
    words: str
    limit: int = 20


LOOK_UP = ToolSpec("look_up", "Look somebody up.", LookUp.model_json_schema())
SEARCH = ToolSpec("search", "Search the web.", Search.model_json_schema())
NOW = ToolSpec("now", "The time.", {"type": "object", "properties": {}})

QUESTION = HistoryItem(role="user", content="Who is Ada?")
REQUEST = asked(QUESTION, tools=(LOOK_UP, SEARCH, NOW))


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def provider(llmock: LLMock, api: Api) -> OpenAIProvider:
    return OpenAIProvider("gpt-test", api=api)


def lines_sent(llmock: LLMock) -> list[dict[str, Any]]:
    body = llmock.last_request.body
    lines: list[dict[str, Any]] = body["input"] if "input" in body else body["messages"][1:]
    return lines


def told(api: Api, rounds: list[tuple[list[ToolCall], list[str]]]) -> list[dict[str, Any]]:
    """What the model is to be told of rounds of calls."""
    lines: list[dict[str, Any]] = []
    for calls, outputs in rounds:
        if api == "responses":
            for call in calls:
                function = {"name": call.name, "arguments": call.arguments}
                lines.append({"type": "function_call", "call_id": call.id, **function})
            for call, output in zip(calls, outputs, strict=True):
                lines.append({"type": "function_call_output", "call_id": call.id, "output": output})
        else:
            functions = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in calls
            ]
            lines.append({"role": "assistant", "content": None, "tool_calls": functions})
            for call, output in zip(calls, outputs, strict=True):
                lines.append({"role": "tool", "tool_call_id": call.id, "content": output})
    return lines


class TestOffers:
    def test_tools_are_offered_beside_the_output_that_is_wanted(
        self, llmock: LLMock, provider: OpenAIProvider, api: Api, way: Way
    ) -> None:
        llmock.tool_mode("off")

        assert set(reply_of(provider, REQUEST, way).data) == {"message"}

        body = llmock.last_request.body
        tools = body["tools"] if api == "responses" else [each["function"] for each in body["tools"]]
        assert {each["type"] for each in body["tools"]} == {"function"}
        assert [(each["name"], each["description"]) for each in tools] == [
            ("look_up", "Look somebody up."),
            ("search", "Search the web."),
            ("now", "The time."),
        ]
        assert ("response_format" in body) or ("format" in body["text"])
        assert "parallel_tool_calls" not in body
        assert "tool_choice" not in body

    def test_arguments_are_asked_for_strictly_unless_the_model_would_have_to_invent_one(
        self, llmock: LLMock, provider: OpenAIProvider, api: Api
    ) -> None:
        provider.generate(REQUEST)

        body = llmock.last_request.body
        tools = body["tools"] if api == "responses" else [each["function"] for each in body["tools"]]
        look_up, search, now = tools
        assert [each["strict"] for each in tools] == [True, False, True]
        assert look_up["parameters"]["required"] == ["name", "city"]
        assert look_up["parameters"]["additionalProperties"] is False
        assert search["parameters"] == Search.model_json_schema()
        assert now["parameters"]["properties"] == {}


class TestCalls:
    def test_calls_come_back_as_the_model_wrote_them(
        self, llmock: LLMock, provider: OpenAIProvider, way: Way
    ) -> None:
        calls = (ScriptedCall("look_up", {"name": "Ada"}), ScriptedCall("look_up", {"name": "Grace"}))
        llmock.add(Scripted(tool_calls=calls))

        reply = reply_of(provider, REQUEST, way)

        assert reply.data == {}
        assert reply.finish_reason == "tool_calls"
        assert [(each.name, json.loads(each.arguments)) for each in reply.tool_calls] == [
            ("look_up", {"name": "Ada"}),
            ("look_up", {"name": "Grace"}),
        ]
        assert len({each.id for each in reply.tool_calls}) == 2
        assert reply.usage.output_tokens > 0

    def test_arguments_are_not_checked(self, llmock: LLMock, provider: OpenAIProvider, way: Way) -> None:
        llmock.call_tool("look_up", {"name": "Ada Lovelace"}).break_tool_call("malformed_arguments")

        (call,) = reply_of(provider, REQUEST, way).tool_calls

        assert call.arguments.startswith('{"name"')
        with pytest.raises(json.JSONDecodeError):
            json.loads(call.arguments)

    def test_they_are_no_part_of_the_text(self, llmock: LLMock, provider: OpenAIProvider) -> None:
        llmock.call_tool("look_up", {"name": "Ada"})

        pieces, reply = heard(provider.stream(REQUEST))

        assert pieces == []
        assert reply.tool_calls

    def test_text_beside_a_call_is_not_the_answer(
        self, llmock: LLMock, provider: OpenAIProvider, way: Way
    ) -> None:
        llmock.call_tool("look_up", {"name": "Ada"}, text="Let me see.")

        reply = reply_of(provider, REQUEST, way)

        assert (reply.data, reply.finish_reason, len(reply.tool_calls)) == ({}, "tool_calls", 1)

    @pytest.mark.parametrize(
        "parts",
        [
            # Gemini's way: all have the first place, and each comes as a whole.
            [
                {"index": 0, "id": "a", "function": {"name": "look_up", "arguments": "{}"}},
                {"index": 0, "id": "b", "function": {"name": "now", "arguments": "{}"}},
            ],
            # The ID or the name again and again.
            [
                {"index": 0, "id": "a", "function": {"name": "look_up", "arguments": "{"}},
                {"index": 0, "id": "a", "function": {"name": "look_up", "arguments": "}"}},
                {"index": 1, "id": "b", "function": {"name": "now", "arguments": "{}"}},
            ],
            # Side by side, and an empty ID instead of none.
            [
                {"index": 0, "id": "a", "type": "function", "function": {"name": "look_up", "arguments": ""}},
                {"index": 1, "id": "b", "type": "function", "function": {"name": "now", "arguments": ""}},
                {"index": 0, "id": "", "function": {"arguments": "{}"}},
                {"index": 1, "id": "", "function": {"arguments": "{}"}},
            ],
            # No places.
            [
                {"id": "a", "function": {"name": "look_up"}},
                {"function": {"arguments": "{}"}},
                {"id": "b", "function": {"name": "now", "arguments": "{}"}},
            ],
        ],
    )
    def test_parts_of_calls_are_put_together_whatever_the_server_leaves_out(
        self, parts: list[dict[str, Any]]
    ) -> None:
        def answer(line: Line) -> None:
            line.streams()
            for part in parts:
                line.event(chunk(tool_calls=[part]))
            line.event(chunk("stop"))  # not every server says "tool_calls"
            line.ends()

        with OwnServer(answer) as server:
            reply = reply_of(OpenAIProvider("m", api="chat", base_url=server.url), REQUEST, "stream")

        assert reply.tool_calls == (ToolCall("a", "look_up", "{}"), ToolCall("b", "now", "{}"))
        assert reply.finish_reason == "tool_calls"

    @pytest.mark.parametrize("way", WAYS)
    def test_calls_without_ids_get_some(self, way: Way) -> None:
        calls = [
            {"index": index, "function": {"name": "now", "arguments": "{}"}, "type": "function"}
            for index in (0, 1)
        ]

        def answer(line: Line) -> None:
            if way == "generate":
                return line.says(json.dumps(completion("tool_calls", content=None, tool_calls=calls)))
            line.streams()
            line.event(chunk("tool_calls", tool_calls=calls))
            return line.ends()

        with OwnServer(answer) as server:
            reply = reply_of(OpenAIProvider("m", api="chat", base_url=server.url), REQUEST, way)

        assert [each.id for each in reply.tool_calls] == ["call_0", "call_1"]


class TestRounds:
    def test_rounds_follow_the_messages(
        self, llmock: LLMock, provider: OpenAIProvider, api: Api, way: Way
    ) -> None:
        calls = [ToolCall("c1", "look_up", '{"name": "Ada"}'), ToolCall("c2", "now", "{}")]
        more = [ToolCall("c3", "search", '{"words": "Ada"}')]
        rounds = (ToolRound(tuple(calls), ("a countess", "noon")), ToolRound(tuple(more), ("",)))

        reply_of(provider, asked(QUESTION, tools=(LOOK_UP, SEARCH, NOW), rounds=rounds), way)

        assert lines_sent(llmock) == [
            {"role": "user", "content": "Who is Ada?"},
            *told(api, [(calls, ["a countess", "noon"]), (more, [""])]),
        ]

    def test_a_call_without_arguments_is_told_as_one_with_none(
        self, llmock: LLMock, provider: OpenAIProvider, api: Api
    ) -> None:
        rounds = (ToolRound((ToolCall("c1", "now", ""),), ("noon",)),)

        provider.generate(asked(QUESTION, tools=(NOW,), rounds=rounds))

        assert lines_sent(llmock)[1:] == told(api, [([ToolCall("c1", "now", "{}")], ["noon"])])

    def test_calls_of_earlier_turns_are_told_where_they_were_made(
        self, llmock: LLMock, provider: OpenAIProvider, api: Api, way: Way
    ) -> None:
        call = {"id": "c1", "name": "look_up", "arguments": '{"name": "Ada"}'}

        reply_of(
            provider,
            asked(
                QUESTION,
                HistoryItem(role="tool", name="look_up", content="a countess", tool_calls=[call]),
                HistoryItem(role="assistant", content="She is a countess."),
                HistoryItem(role="user", content="Thanks!"),
            ),
            way,
        )

        assert lines_sent(llmock) == [
            {"role": "user", "content": "Who is Ada?"},
            *told(api, [([ToolCall(**call)], ["a countess"])]),
            {"role": "assistant", "content": "She is a countess."},
            {"role": "user", "content": "Thanks!"},
        ]

    @pytest.mark.parametrize("calls", [None, [], [{}], [{"name": "look_up"}]])
    def test_an_output_without_its_call_is_left_out(
        self, llmock: LLMock, provider: OpenAIProvider, calls: list[dict[str, Any]] | None
    ) -> None:
        lone = HistoryItem(role="tool", name="look_up", content="a countess", tool_calls=calls)

        provider.generate(asked(lone, QUESTION))

        assert lines_sent(llmock) == [{"role": "user", "content": "Who is Ada?"}]
