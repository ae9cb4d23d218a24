"""Compaction: long conversations made to fit the model's budget, and rows left as they are."""

from __future__ import annotations

from typing import Any

import pytest

from inturn import Agent
from inturn.agent import ModelReply, ModelRequest, ScriptedProvider, ToolCall, tool
from inturn.agent.compaction import estimate_tokens
from inturn.agent.schema import Digest
from inturn.persistence import MemoryAdapter, MessageQuery
from inturn.session import HistoryItem

LONG = "word " * 80  # 100 tokens
BUDGET = 1000


@tool(read_only=True)
def search() -> str:
    """Search."""
    return "found " * 500  # 750 tokens


class Talk:
    """A conversation through processes that come and go; it keeps what the model was asked."""

    def __init__(self, **options: Any) -> None:
        self.store = MemoryAdapter()
        self.requests: list[ModelRequest] = []
        self.options = {"token_budget": BUDGET, **options}
        self.digests = 0

    def say(self, message: str, **options: Any) -> Any:
        def answer(request: ModelRequest) -> Any:
            self.requests.append(request)
            if request.output is Digest:
                self.digests += 1
                return {"summary": f"summary {self.digests}"}
            if message == "search" and not request.rounds:
                return ModelReply({}, tool_calls=(ToolCall("1", "search", "{}"),))
            return f"reply to {message[:10]} {LONG}"

        window = self.options.get("history_window", 50)
        provider = ScriptedProvider(answer, token_budget=self.options["token_budget"])
        bot = Agent(
            "Talker", provider=provider, tools=[search], persistence=self.store, session_id="s",
            history_window=window,
        )  # fmt: skip
        return bot.respond(message, **options)

    @property
    def told(self) -> tuple[HistoryItem, ...]:
        return self.requests[-1].messages

    def rows(self) -> list[Any]:
        return self.store.find_messages(MessageQuery(session_id="s", limit=1000)).items


def size(request: ModelRequest) -> int:
    return sum(estimate_tokens(line.content) for line in request.messages)


def test_a_short_conversation_is_told_as_it_is() -> None:
    talk = Talk()
    for number in range(3):
        talk.say(f"message {number}")

    assert talk.digests == 0
    assert [line.role for line in talk.told] == ["user", "assistant"] * 2 + ["user"]


def test_without_a_budget_nothing_is_compacted() -> None:
    talk = Talk(token_budget=None)
    for number in range(20):
        talk.say(f"message {number} {LONG}")

    assert talk.digests == 0
    assert len(talk.told) == 39


def test_long_outputs_of_tools_are_shortened_first() -> None:
    talk = Talk()
    talk.say("search")
    talk.say("message 1")
    talk.say("message 2")

    assert talk.digests == 0
    shortened = talk.told[1]
    assert (shortened.role, shortened.name) == ("tool", "search")
    assert shortened.content.endswith("[shortened: 3000 characters]")
    assert len(shortened.content) < 600
    assert talk.rows()[1].content == search.function(), "the row is as it was"


def test_older_lines_become_a_summary_that_is_stored_and_stands_for_them() -> None:
    talk = Talk()
    for number in range(5):
        talk.say(f"message {number} {LONG}")
    assert talk.digests == 1

    response = talk.say("one more")

    assert response.usage.calls == 1, "a summary is made once"
    assert talk.told[0].content == "Summary of what was said before, not a message: summary 1"
    assert [line.content[:9] for line in talk.told[1:3]] != ["message 0", "reply to "]
    rows = talk.rows()
    (summary,) = [row for row in rows if row.role == "system"]
    assert (summary.name, summary.content) == ("summary", "summary 1")
    through = summary.event["summary"]["through"]
    assert rows[through - 1].role == "assistant"
    assert [line.content for line in talk.told[1:-1]] == [
        row.content for row in rows[through:-2] if row.role != "system"
    ], "and every line after it is told, once"
    assert len([row for row in rows if row.role == "user"]) == 6, "all rows are there"


@pytest.mark.parametrize("window", [8, 50])
def test_a_conversation_of_any_length_stays_within_the_budget(window: int) -> None:
    talk = Talk(history_window=window)
    for number in range(40):
        talk.say(f"message {number} {LONG}", turn_id=f"t{number}")

    assert all(size(request) <= BUDGET for request in talk.requests)
    assert talk.digests < 30
    last = [line.content for line in talk.told]
    assert last[0].endswith(f"summary {talk.digests}"), "the newest summary leads"
    assert last[-1].startswith("message 39")
    digest = [request for request in talk.requests if request.output is Digest][-1]
    assert f"summary {talk.digests - 1}" in digest.messages[0].content, "a summary goes into the next"


def test_a_summary_is_committed_with_its_turn_and_only_then() -> None:
    talk = Talk()
    for number in range(4):
        talk.say(f"message {number} {LONG}")
    before = talk.store.load("s")
    talk.store.commit = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        talk.say(f"message 4 {LONG}")
    del talk.store.commit

    assert talk.digests == 1
    assert talk.store.load("s") == before
    talk.say(f"message 4 {LONG}")
    found = talk.store.load("s")
    assert found is not None
    assert found.session.summary is not None
    assert found.session.summary.text == "summary 2"


def test_a_cleared_history_leaves_no_summary_behind() -> None:
    talk = Talk()
    for number in range(6):
        talk.say(f"message {number} {LONG}")
    bot = Agent("Talker", provider=ScriptedProvider([]), persistence=talk.store, session_id="s")
    bot.session.clear_history()

    talk.say("anew")

    assert [line.content for line in talk.told] == ["anew"]


def test_a_single_line_that_is_too_long_is_cut() -> None:
    talk = Talk()
    talk.say("x" * 20_000)
    talk.say("well?")

    assert size(talk.requests[-1]) <= BUDGET


def test_the_same_words_come_first_in_every_prompt_of_a_route() -> None:
    """Providers cache what they were sent before, from its beginning on."""
    talk = Talk(token_budget=None)
    for number in range(3):
        talk.say(f"message {number}")

    assert len({request.instructions for request in talk.requests}) == 1
    for earlier, later in zip(talk.requests, talk.requests[1:], strict=False):
        kept = earlier.messages[:-1]
        assert later.messages[: len(kept)] == kept
