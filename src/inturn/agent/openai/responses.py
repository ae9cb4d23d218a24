"""The Responses API: its words for a request, and what its answers and streams say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from inturn.agent.openai.answer import Answer, tokens
from inturn.agent.openai.errors import broken_off, failed
from inturn.agent.openai.question import arguments, conversation, function, given, images, output_format
from inturn.agent.provider import ModelRequest, ToolCall, ToolRound
from inturn.session.state import HistoryItem

if TYPE_CHECKING:
    import openai
    from openai.types.responses import Response, ResponseStreamEvent

_WAITING = frozenset({"response.created", "response.queued", "response.in_progress"})


def ask(client: openai.OpenAI, model: str, request: ModelRequest, limit: int | None, **how: Any) -> Any:
    """See `Api.ask`. Nothing is kept on the provider's side (`store`)."""
    create: Any = client.responses.create
    return create(
        model=model,
        instructions=request.instructions,
        input=list(_items(request)),
        text={"format": {"type": "json_schema", **output_format(request)}},
        tools=given([{"type": "function", **function(tool)} for tool in request.tools]),
        max_output_tokens=given(limit),
        store=False,
        **how,
    )


def read(given: Response) -> Answer:
    """See `Api.read`."""
    if given.error is not None:
        raise failed(given.error.code)
    if given.status in ("failed", "cancelled"):
        raise failed(None)
    fault: str | None = None
    if given.incomplete_details is not None:
        fault = given.incomplete_details.reason or "incomplete"
    text: list[str] = []
    calls: list[ToolCall] = []
    for item in given.output:
        if item.type == "function_call":
            calls.append(ToolCall(item.call_id or f"call_{len(calls)}", item.name, item.arguments or ""))
        elif item.type == "message":
            for part in item.content:
                if part.type == "refusal":
                    fault = fault or "refusal"
                elif part.type == "output_text":
                    text.append(part.text)
    usage = given.usage
    return Answer(
        "".join(text),
        tuple(calls),
        fault,
        usage=tokens(
            getattr(usage, "input_tokens", None),
            getattr(usage, "output_tokens", None),
            getattr(usage, "input_tokens_details", None),
        ),
    )


class Transcript:
    """See `api.Transcript`: the last event carries the whole answer once more."""

    def __init__(self) -> None:
        self._final: Response | None = None

    def take(self, event: ResponseStreamEvent) -> str | None:
        """See `api.Transcript.take`."""
        if event.type == "response.output_text.delta":
            return event.delta
        if event.type == "error":
            raise failed(event.code)
        if (
            event.type == "response.completed"
            or event.type == "response.incomplete"
            or event.type == "response.failed"
        ):
            self._final = event.response
        is_output = event.type.startswith("response.") and event.type not in _WAITING
        return "" if is_output else None

    def answer(self) -> Answer:
        """See `api.Transcript.answer`."""
        if self._final is None:
            raise broken_off()
        return read(self._final)


def transcript() -> Transcript:
    """See `Api.transcript`."""
    return Transcript()


def _items(request: ModelRequest) -> Iterator[Any]:
    for each in conversation(request):
        if isinstance(each, ToolRound):
            for call in each.calls:
                yield {
                    "type": "function_call",
                    "call_id": call.id,
                    "name": call.name,
                    "arguments": arguments(call),
                }
            for call, output in zip(each.calls, each.outputs, strict=True):
                yield {"type": "function_call_output", "call_id": call.id, "output": output}
        else:
            yield {"role": each.role, "content": _content(each)}


def _content(line: HistoryItem) -> Any:
    if not (urls := images(line)):
        return line.content
    text = [{"type": "input_text", "text": line.content}] if line.content.strip() else []
    return [*text, *({"type": "input_image", "image_url": url, "detail": "auto"} for url in urls)]
