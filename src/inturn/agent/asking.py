"""Asking: the calls of the model in one turn, of the tools it wants, and what is told of its answer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from inturn.agent import changes
from inturn.agent.budget import billed
from inturn.agent.compaction import estimate_tokens
from inturn.agent.context import Scene
from inturn.agent.draft import Draft
from inturn.agent.provider import ModelReply, ModelRequest, ToolCall
from inturn.agent.route import Route
from inturn.agent.toolwork import resume, work
from inturn.agent.watched import ModelCall, StoppedError
from inturn.contract import Piece, Usage
from inturn.errors import ProviderError

Read = Callable[[Mapping[str, Any]], bool]
"""Takes in what an answer says of the message; True if the message in it is the reply."""


class Asking:
    """Asks the model, in one piece or as a stream; `stopped` is looked at before each call and each piece."""

    def __init__(self, scene: Scene, *, streams: bool, stopped: Callable[[], bool]) -> None:
        self.usage = Usage()
        self.rounds = scene.journal.rounds
        self._scene = scene
        self._provider = scene.definition.provider
        self._streams = streams
        self._stopped = stopped
        self._told = ""  # the text that pieces have told so far
        self._void = True  # the next piece begins the text anew
        self._resumed = False

    @property
    def told(self) -> str:
        """The text that is told and still counts."""
        return "" if self._void else self._told

    def generate(self, request: ModelRequest) -> ModelReply:
        """Ask in one piece, without tools."""
        self._check()
        with billed(self._scene.budget) as bill, ModelCall(self._provider, streams=False) as call:
            reply = call.reply = self._provider.generate(request)
            bill.usage = reply.usage
        self.usage = self.usage + reply.usage
        return reply

    def ask(
        self, request: ModelRequest, route: Route | None, steps: Iterable[str], read: Read | None = None
    ) -> Generator[Piece, None, ModelReply]:
        """The model's answer, once it wants no more tools; `read` is given what it says, once.

        The tools are those of the agent, of `route` and of its `steps`.
        """
        offered = self._scene.definition.tools_of(route, set(steps))
        while True:
            may_call = len(self.rounds) < self._scene.definition.max_tool_rounds
            specs = tuple(tool.spec for tool in offered.values()) if may_call else ()
            told = tuple(noted.as_told() for noted in self.rounds)
            reply = yield from self._call(replace(request, tools=specs, rounds=told), read or _is_reply)
            if not reply.tool_calls:
                return reply
            if not specs:
                raise ProviderError("the model asked for tools that it was not offered")
            self._void = True
            calls = _distinct(reply.tool_calls)
            for result in work(self._scene, offered, calls, route.id if route else None):
                changes.apply(self._scene, result.effects)

    def resume(self, route: Route | None) -> None:
        """Take over what an earlier attempt at this turn had its tools do; the second time nothing."""
        if not self._resumed:
            self._resumed = True
            offered = self._scene.definition.tools_of(
                route, {step.id for step in route.steps} if route else ()
            )
            for number, noted in enumerate(self.rounds):
                for result in resume(self._scene, offered, noted, number):
                    changes.apply(self._scene, result.effects)

    def tell(self, message: str, *, whole: bool = False) -> Generator[Piece, None, None]:
        """Tell what of `message` was not told yet; `whole`: it is the reply, whatever was told before."""
        if not self._streams:
            return
        told = self.told
        restarts = self._void or (whole and not message.startswith(told))
        text = message if restarts else message[len(told) :]
        if text:
            self._void, self._told = False, message
            yield Piece(text, restarts)

    def _call(self, request: ModelRequest, read: Read) -> Generator[Piece, None, ModelReply]:
        if self._streams:
            return (yield from self._stream(request, read))
        reply = self.generate(request)
        if not reply.tool_calls:
            read(reply.data)
        return reply

    def _stream(self, request: ModelRequest, read: Read) -> Generator[Piece, None, ModelReply]:
        self._check()
        draft = Draft(request.output)
        serves: bool | None = None
        reply: ModelReply
        with (
            billed(self._scene.budget) as bill,
            ModelCall(self._provider, streams=True) as call,
            closing(self._provider.stream(request)) as stream,
        ):
            bill.guess = lambda: _estimated(request, draft) if draft.length else Usage(calls=1)
            while True:
                try:
                    draft.feed(next(stream))
                except StopIteration as end:
                    reply = call.reply = end.value
                    bill.usage = reply.usage
                    break
                call.came()
                if draft.fields is not None:
                    if serves is None:
                        serves = read(draft.fields)
                    if not serves:
                        # What it is about to say is not the reply: the rest is not worth the wait.
                        call.usage = _estimated(request, draft)
                        self.usage = self.usage + call.usage
                        return ModelReply(draft.fields)
                    yield from self.tell(draft.message)
                self._check()
        self.usage = self.usage + reply.usage
        if not reply.tool_calls and serves is None:
            read(reply.data)
        return reply

    def _check(self) -> None:
        if self._stopped():
            raise StoppedError


def _is_reply(data: Mapping[str, Any]) -> bool:  # noqa: ARG001
    return True


def _distinct(calls: Iterable[ToolCall]) -> list[ToolCall]:
    """The calls with IDs of their own, whatever the model gave them."""
    seen: set[str] = set()
    distinct = []
    for number, call in enumerate(calls):
        call_id = call.id if call.id and call.id not in seen else f"{call.id or 'call'}_{number}"
        seen.add(call_id)
        distinct.append(replace(call, id=call_id))
    return distinct


def _estimated(request: ModelRequest, draft: Draft) -> Usage:
    """About what a call has cost that was ended early: nobody tells."""
    asked = request.instructions + "".join(line.content for line in request.messages)
    return Usage(calls=1, input_tokens=estimate_tokens(asked), output_tokens=draft.length // 4 + 1)
