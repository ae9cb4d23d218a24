"""Toolwork: the calls of one reply, checked, made and noted."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, TimeoutError
from typing import Any, NamedTuple

import structlog
from pydantic import BaseModel

from inturn.agent.context import Scene, TurnContext, effects_of
from inturn.agent.journal import Round, ToolResult
from inturn.agent.provider import ToolCall
from inturn.agent.schema import clean
from inturn.agent.tools import Tool, ToolError
from inturn.agent.watched import count_tool_call, tool_call
from inturn.errors import InvalidInputError
from inturn.values import to_json

log = structlog.get_logger(__name__)

LONGEST_OUTPUT = 32_000
"""Characters of a tool's output that are kept and shown to the model."""

UNKNOWN = (
    "The process ended while this call was made: whether it took effect is not known. Do not call it again; "
    "tell the user that it must be looked into."
)


class _Checked(NamedTuple):
    tool: Tool
    arguments: BaseModel
    context: TurnContext


def work(
    scene: Scene, tools: Mapping[str, Tool], calls: Sequence[ToolCall], route: str | None
) -> Sequence[ToolResult]:
    """Make the calls of one reply and give their results, in the order of the calls.

    A call that cannot be made (no such tool, wrong arguments, not permitted) is answered at once. If any of
    the others is not `read_only`, the round is noted in the journal before the first call and again after
    the last one. Calls run one after another, unless all of them are read-only.
    """
    number = len(scene.journal.rounds)
    checked = [_check(scene, tools, call, f"{number}.{index}") for index, call in enumerate(calls)]
    save = any(isinstance(each, _Checked) and not each.tool.read_only for each in checked)
    noted = scene.journal.announce(route, calls, save=save)
    noted.results[:] = _make(checked, side_by_side=not save)
    scene.journal.complete(save=save)
    return [result for result in noted.results if result is not None]


def resume(scene: Scene, tools: Mapping[str, Tool], noted: Round, number: int) -> Sequence[ToolResult]:
    """The results of a round that an earlier attempt at this turn has begun."""
    for index, call in enumerate(noted.calls):
        if noted.results[index] is None:
            checked = _check(scene, tools, call, f"{number}.{index}")
            if isinstance(checked, _Checked) and not checked.tool.read_only:
                log.warning("outcome of a tool's call is not known", tool=call.name)
                checked = ToolResult(UNKNOWN, failed=True)
            noted.results[index] = _make([checked], side_by_side=False)[0]
    return [result for result in noted.results if result is not None]


def _check(scene: Scene, tools: Mapping[str, Tool], call: ToolCall, place: str) -> _Checked | ToolResult:
    tool = tools.get(call.name)
    if tool is None:
        return ToolResult(f"There is no tool {call.name!r} here.", failed=True)
    context = TurnContext(scene, call_id=f"{scene.turn_id}/{place}")
    try:
        arguments = tool.check(call.arguments)
    except InvalidInputError as error:
        return ToolResult(str(error), failed=True)
    try:
        allowed = tool.allows(context, arguments)
    except Exception as error:
        log.warning("a tool's permit failed: refused", tool=tool.name, error=type(error).__name__)
        allowed = False
    if not allowed:
        return ToolResult("This call is not permitted.", failed=True)
    return _Checked(tool, arguments, context)


def _make(checked: Sequence[_Checked | ToolResult], *, side_by_side: bool) -> list[ToolResult]:
    results: list[ToolResult] = []
    begun = [_begin(each) if side_by_side and isinstance(each, _Checked) else None for each in checked]
    for each, future in zip(checked, begun, strict=True):
        if isinstance(each, ToolResult):
            results.append(each)
        else:
            results.append(_result(each, future or _begin(each)))
    return results


def _begin(checked: _Checked) -> Future[Any]:
    """Start a call in a thread of its own, which a call that never returns can keep without harm."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            with tool_call(checked.tool.name, checked.context.call_id or ""):
                value = checked.tool.call(checked.context, checked.arguments)
            future.set_result(value)
        except BaseException as error:
            future.set_exception(error)

    context = contextvars.copy_context()  # logs know the session and the turn by it
    threading.Thread(target=context.run, args=(run,), name=f"tool {checked.tool.name}", daemon=True).start()
    return future


def _result(checked: _Checked, future: Future[Any]) -> ToolResult:
    tool = checked.tool
    try:
        value = future.result(timeout=tool.timeout)
        output = _text(value)
    except TimeoutError:
        if future.done():  # the tool itself raised it
            return _failure(tool, "TimeoutError")
        log.warning("a tool takes too long; it goes on by itself", tool=tool.name, seconds=tool.timeout)
        count_tool_call(tool.name, "timeout")
        return ToolResult(
            f"No answer within {tool.timeout:g} seconds; whether the call takes effect is not known.",
            failed=True,
        )
    except ToolError as error:
        count_tool_call(tool.name, "failed")
        return ToolResult(_cut(clean(str(error))) or "The call failed.", failed=True)
    except Exception as error:
        # Its message may hold anything, and the model need not know more.
        return _failure(tool, type(error).__name__)
    count_tool_call(tool.name, "ok")
    return ToolResult(output, effects=effects_of(checked.context))


def _failure(tool: Tool, kind: str) -> ToolResult:
    log.warning("a tool failed", tool=tool.name, error=kind)
    count_tool_call(tool.name, "failed")
    return ToolResult(f"The call failed ({kind}).", failed=True)


def _text(value: Any) -> str:
    if value is None:
        return "done"
    return _cut(clean(value if isinstance(value, str) else to_json(value, "the tool's result")))


def _cut(text: str) -> str:
    if len(text) <= LONGEST_OUTPUT:
        return text
    return f"{text[:LONGEST_OUTPUT]} [cut off: {len(text)} characters in all]"
