"""Streams: the reply of a turn while it is written, and only the reply."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from typing import Any

import pytest
from pydantic import BaseModel, Field

from inturn import Agent, Piece, Route, Step
from inturn.agent import ModelReply, ModelRequest, ScriptedProvider, ToolCall, TurnStream, tool
from inturn.contract import TurnFault
from inturn.errors import ProviderUnavailableError, SessionError, TurnFailedError
from inturn.persistence import MemoryAdapter, MessageQuery


class Trip(BaseModel):
    city: str | None = None
    count: int | None = Field(None, ge=1)


STEPS = [Step("Where to?", collect=["city"]), Step("How many?", collect=["count"])]


def agent(replies: Any, *, size: int = 1, **options: Any) -> Agent:
    options = {"schema": Trip, "routes": [Route("Trip", steps=STEPS)], **options}
    return Agent("Travel", provider=ScriptedProvider(replies, size=size), **options)


def whole(**fields: Any) -> dict[str, Any]:
    """An answer with all fields, the message last, as a model in strict mode writes it."""
    message = fields.pop("message")
    return {"city": None, "count": None, "next_step": "city", **fields, "message": message}


def text(pieces: list[Piece]) -> str:
    """What a reader shows in the end."""
    shown = ""
    for piece in pieces:
        shown = piece.text if piece.restarts else shown + piece.text
    return shown


class Raw:
    """A provider that streams the given texts."""

    def __init__(self, *pieces: str) -> None:
        self._pieces = pieces
        self.read = 0

    def generate(self, request: ModelRequest) -> ModelReply:
        return ModelReply(json.loads("".join(self._pieces)))

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        for piece in self._pieces:
            self.read += 1
            yield piece
        return self.generate(request)


class TestText:
    @pytest.mark.parametrize("size", [1, 2, 7, 1000])
    def test_the_message_comes_in_pieces_of_clean_text(self, size: int) -> None:
        message = 'Where "to"?\n\\ é 😀 {"json": 1}'
        stream = agent([whole(message=message)], size=size).stream("hi")

        pieces = list(stream)

        assert "".join(piece.text for piece in pieces) == message == stream.response.message
        assert [piece.restarts for piece in pieces] == [True, *[False] * (len(pieces) - 1)]
        assert len(pieces) > 5 or size > 2

    def test_a_stream_commits_what_a_call_in_one_piece_commits(self) -> None:
        def rows(streams: bool) -> list[Any]:
            store = MemoryAdapter()
            bot = agent([whole(city="Oslo", next_step="count", message="How many?")], persistence=store, session_id="s")  # fmt: skip  # noqa: E501
            if streams:
                list(bot.stream("Oslo", turn_id="t"))
            else:
                bot.respond("Oslo", turn_id="t")
            found = store.load("s", turn_id="t")
            assert found is not None
            assert found.turn is not None
            messages = store.find_messages(MessageQuery(session_id="s")).items
            return [
                found.session.data,
                found.turn.result,
                [(row.role, row.content, row.step) for row in messages],
            ]

        assert rows(True) == rows(False)

    def test_a_message_that_is_not_the_reply_is_never_told(self) -> None:
        bot = agent([whole(city="Oslo", message="Where to, please?"), "How many?"])

        pieces = list(bot.stream("Oslo"))

        assert "".join(piece.text for piece in pieces) == "How many?"

    def test_it_is_not_even_read_to_its_end(self) -> None:
        answer = json.dumps(whole(city="Oslo", message="x" * 500))

        class Eager(Raw):
            def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
                if "city" in request.output.model_fields:
                    return (yield from super().stream(request))
                yield '{"message": "How many?"}'
                return ModelReply({"message": "How many?"})

        provider = Eager(*answer)
        bot = Agent("T", provider=provider, schema=Trip, routes=[Route("Trip", steps=STEPS)])
        stream = bot.stream("Oslo")

        assert text(list(stream)) == "How many?"
        assert provider.read < len(answer) - 490
        assert stream.response.usage.calls == 2, "the call that was ended counts"
        assert stream.response.usage.input_tokens > 0

    def test_a_refused_value_is_asked_again_in_the_stream(self) -> None:
        bot = agent([whole(count=0, message="Fine, none!"), "At least one, please."])

        assert text(list(bot.stream("none"))) == "At least one, please."

    def test_a_message_before_the_fields_waits_for_them(self) -> None:
        bot = agent([{"message": "Where to?", "city": "Oslo", "next_step": "city"}, "How many?"])

        assert text(list(bot.stream("Oslo"))) == "How many?"

    @pytest.mark.parametrize(
        "answer",
        [
            '{"city":null,"count":null,"next_step":"city","message":"a\\ud800b"}',
            '{"city":null,"count":null,"next_step":"city","message":"a\\u0000b"}',
            '  {"city":null,"count":null,"next_step":"city","message":"ab"}',
            '{"message":"ab"}',
        ],
    )
    def test_whatever_a_model_writes_the_pieces_make_the_reply(self, answer: str) -> None:
        bot = Agent("T", provider=Raw(*answer), schema=Trip, routes=[Route("Trip", steps=STEPS)])
        stream = bot.stream("hi")

        pieces = list(stream)

        assert text(pieces) == stream.response.message
        assert stream.response.message in ("ab", "a\ufffdb")

    def test_text_before_a_call_of_a_tool_is_void(self) -> None:
        @tool
        def look() -> str:
            """Look."""
            return "seen"

        class Chatty(Raw):
            def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
                if request.rounds:
                    return (yield from super().stream(request))
                yield '{"message": "Let me look'
                return ModelReply({}, tool_calls=(ToolCall("1", "look", "{}"),))

        bot = Agent("T", provider=Chatty('{"message": "Seen."}'), tools=[look])
        pieces = list(bot.stream("hi"))

        assert text(pieces) == "Seen."
        assert [piece.restarts for piece in pieces].count(True) == 2

    def test_a_turn_that_was_committed_is_told_in_one_piece(self) -> None:
        bot = agent([whole(message="Where to?")])
        bot.respond("hi", turn_id="t")

        stream = bot.stream("hi", turn_id="t")

        assert list(stream) == [Piece("Where to?", restarts=True)]
        assert stream.response.message == "Where to?"

    def test_a_turn_that_failed_is_told_and_raised(self) -> None:
        bot = agent([])
        bot.record_failure("hi", TurnFault(type="X", message="x"), turn_id="t")
        stream = bot.stream("hi", turn_id="t")

        assert next(stream).text.startswith("Sorry")
        with pytest.raises(TurnFailedError):
            next(stream)

    def test_a_turn_that_is_taken_again_begins_its_text_anew(self) -> None:
        store = MemoryAdapter()
        other = agent([whole(message="Hm?")], persistence=store, session_id="s")
        bot = agent(
            [whole(message="Where to?"), whole(message="Where to, then?")], persistence=store, session_id="s"
        )
        stream = bot.stream("hi")
        pieces = [next(stream)]
        other.respond("me first")

        pieces += stream

        assert text(pieces) == "Where to, then?" == stream.response.message


class TestEnd:
    def test_a_stream_that_breaks_leaves_nothing(self) -> None:
        class Broken(Raw):
            def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
                yield '{"message": "Where'
                raise ProviderUnavailableError

        bot = Agent("T", provider=Broken())
        stream = bot.stream("hi")

        assert next(stream).text == "Where"
        with pytest.raises(ProviderUnavailableError):
            next(stream)
        assert bot.session.get_history() == []
        with pytest.raises(SessionError, match="has not ended"):
            _ = stream.response

    def test_a_stop_keeps_what_was_said_and_marks_it(self) -> None:
        store = MemoryAdapter()
        replies = [
            whole(city="Oslo", next_step="count", message="How many people?"),
            whole(next_step="count", message="How many?"),
        ]
        bot = agent(replies, size=4, persistence=store, session_id="s")
        stream = bot.stream("Oslo", turn_id="t")
        said = next(stream).text
        stream.stop()
        said += "".join(piece.text for piece in stream)

        assert stream.response.finish_reason == "interrupted"
        assert stream.response.message == said != "How many people?"
        rows = store.find_messages(MessageQuery(session_id="s")).items
        assert [(row.role, row.content, row.event) for row in rows] == [
            ("user", "Oslo", None),
            ("assistant", said, {"interrupted": True}),
        ]
        assert bot.session.get_data() == {"city": "Oslo"}, "what the user stated stays"
        assert bot.respond("go on").step == "count", "and what was not said is said again"
        assert bot.respond("Oslo", turn_id="t").message == said, "the turn has ended all the same"

    def test_a_step_that_was_done_by_a_message_is_finalized_though_its_reply_was_stopped(self) -> None:
        done: list[str] = []
        steps = [Step("?", collect=["city"], finalize=lambda turn: done.append(turn.data["city"])), STEPS[1]]
        bot = agent(
            [whole(city="Oslo", next_step="count", message="How many people?")],
            routes=[Route("Trip", steps=steps)],
        )
        with bot.stream("Oslo") as stream:
            next(stream)
            stream.stop()
            list(stream)

        assert done == ["Oslo"]

    def test_a_stop_before_the_first_word(self) -> None:
        bot = agent([whole(message="Where to?")])
        stream = bot.stream("hi", stopped=lambda: True)

        assert list(stream) == []
        assert (stream.response.message, stream.response.finish_reason) == ("", "interrupted")
        assert [line.content for line in bot.session.get_history()] == ["hi", ""]
        bot.respond("hello?")
        provider = bot._definition.provider
        assert isinstance(provider, ScriptedProvider)
        assert [line.content for line in provider.requests[0].messages] == ["hi", "hello?"]

    def test_a_turn_in_one_piece_is_stopped_between_calls(self) -> None:
        asked: list[ModelRequest] = []

        def answer(request: ModelRequest) -> Any:
            asked.append(request)
            return whole(city="Oslo", message="?")

        response = agent(answer).respond("Oslo", stopped=lambda: bool(asked))

        assert (response.finish_reason, response.message, len(asked)) == ("interrupted", "", 1)

    def test_an_abandoned_stream_leaves_nothing_and_frees_the_conversation(self) -> None:
        bot = agent([whole(message="Where to?"), whole(message="Where to?")])
        with bot.stream("hi") as stream:
            next(stream)

        assert bot.session.get_history() == []
        assert bot.respond("hi").message == "Where to?"

    def test_a_turn_within_a_turn_is_an_error_and_not_a_deadlock(self) -> None:
        bot = agent([whole(message="Where to?")])
        stream: TurnStream = bot.stream("hi")
        next(stream)

        with pytest.raises(SessionError, match="a turn of this conversation is running here"):
            bot.respond("and now?")
        list(stream)

    def test_another_thread_waits_for_the_turn(self) -> None:
        bot = agent([whole(message="Where to?"), whole(message="Once more?")])
        stream = bot.stream("hi")
        next(stream)
        answers: list[str] = []
        other = threading.Thread(target=lambda: answers.append(bot.respond("me too").message))
        other.start()

        list(stream)
        other.join(10)

        assert answers == ["Once more?"]
