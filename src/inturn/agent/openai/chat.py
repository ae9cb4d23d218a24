"""Chat Completions: its words for a request, and what its answers and streams say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from inturn.agent.openai.answer import Answer, tokens
from inturn.agent.openai.errors import broken_off
from inturn.agent.openai.question import arguments, conversation, function, given, images, output_format
from inturn.agent.provider import ModelRequest, ToolCall, ToolRound
from inturn.session.state import HistoryItem

if TYPE_CHECKING:
    import openai
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletion, ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

_CUT_OFF = frozenset({"length", "content_filter"})


def ask(client: openai.OpenAI, model: str, request: ModelRequest, limit: int | None, **how: Any) -> Any:
    """See `Api.ask`. Streams are asked to tell the usage, which they otherwise would not."""
    create: Any = client.chat.completions.create
    return create(
        model=model,
        messages=[{"role": "system", "content": request.instructions}, *_messages(request)],
        response_format={"type": "json_schema", "json_schema": output_format(request)},
        tools=given([{"type": "function", "function": function(tool)} for tool in request.tools]),
        max_completion_tokens=given(limit),
        stream_options=given({"include_usage": True} if how.get("stream") else None),
        **how,
    )


def read(given: ChatCompletion) -> Answer:
    """See `Api.read`."""
    choice = given.choices[0]
    message = choice.message
    calls = [
        ToolCall(call.id or f"call_{place}", call.function.name, call.function.arguments or "")
        for place, call in enumerate(message.tool_calls or ())
        if call.type != "custom"
    ]
    return _answer(message.content or "", calls, bool(message.refusal), choice.finish_reason, given.usage)


class Transcript:
    """See `api.Transcript`."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._calls: list[_Call] = []
        self._refused = False
        self._finish: str | None = None
        self._usage: CompletionUsage | None = None

    def take(self, event: ChatCompletionChunk) -> str | None:
        """See `api.Transcript.take`."""
        self._usage = event.usage or self._usage
        if not event.choices:  # the usage comes so
            return None
        choice = event.choices[0]
        self._finish = choice.finish_reason or self._finish
        delta = choice.delta
        self._refused = self._refused or bool(delta.refusal)
        for part in delta.tool_calls or ():
            self._called(part).add(part)
        if delta.content:
            self._text.append(delta.content)
            return delta.content
        # Whatever else it says, reasoning for example, the model has begun.
        return "" if any(value for name, value in delta if name != "role") else None

    def answer(self) -> Answer:
        """See `api.Transcript.answer`."""
        if self._finish is None:
            raise broken_off()
        calls = [
            ToolCall(call.id or f"call_{place}", call.name, "".join(call.arguments))
            for place, call in enumerate(self._calls)
        ]
        return _answer("".join(self._text), calls, self._refused, self._finish, self._usage)

    def _called(self, part: ChoiceDeltaToolCall) -> _Call:
        """The call that a part belongs to: not every server counts its calls."""
        for call in reversed(self._calls):
            if part.index in (call.index, None) and part.id in (call.id, None, ""):
                return call
        self._calls.append(_Call(part.index, part.id or ""))
        return self._calls[-1]


class _Call:
    def __init__(self, index: int | None, id: str) -> None:
        self.index = index
        self.id = id
        self.name = ""
        self.arguments: list[str] = []

    def add(self, part: ChoiceDeltaToolCall) -> None:
        if part.function is not None:
            self.name = self.name or part.function.name or ""
            self.arguments.append(part.function.arguments or "")


def transcript() -> Transcript:
    """See `Api.transcript`."""
    return Transcript()


def _answer(
    text: str, calls: list[ToolCall], refused: bool, finish: str | None, usage: CompletionUsage | None
) -> Answer:
    fault = "refusal" if refused else finish if finish in _CUT_OFF else None
    counted = tokens(
        getattr(usage, "prompt_tokens", None),
        getattr(usage, "completion_tokens", None),
        getattr(usage, "prompt_tokens_details", None),
    )
    return Answer(text, tuple(calls), fault, finish or "stop", counted)


def _messages(request: ModelRequest) -> Iterator[Any]:
    for each in conversation(request):
        if isinstance(each, ToolRound):
            calls = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": arguments(call)},
                }
                for call in each.calls
            ]
            yield {"role": "assistant", "content": None, "tool_calls": calls}
            for call, output in zip(each.calls, each.outputs, strict=True):
                yield {"role": "tool", "tool_call_id": call.id, "content": output}
        else:
            yield {"role": each.role, "content": _content(each)}


def _content(line: HistoryItem) -> Any:
    if not (urls := images(line)):
        return line.content
    text = [{"type": "text", "text": line.content}] if line.content.strip() else []
    return [*text, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
