"""Calling: which tools a message makes due, by rules, and their results in words."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from inturn.agent.filling import fill_arguments
from inturn.agent.provider import ModelRequest, ToolCall, ToolSpec
from inturn.agent.schema import Reply
from inturn.agent.stems import telling


def due_calls(request: ModelRequest, values: dict[str, Any]) -> tuple[ToolCall, ...]:
    """The calls that the last message, which states `values`, makes due.

    - A tool can be called when all its required arguments are known and the message has told one of them; one
      without required arguments also when the message shares a word with its name, or two with its
      description.
    - Of those that can be called, those that share the most words with the message are; if none shares any,
      the last one: a step's tools come behind those of its route and its agent.
    - Each is called once a turn, and none where only the words of the reply are asked for: the turn has heard
      the message before.
    """
    if request.output is Reply:
        return ()
    said = telling(request.messages[-1].content)
    possible: list[tuple[int, ToolSpec, dict[str, Any]]] = []
    for tool in request.tools:
        named, described = _topics(tool)
        meant = bool(said & named) or len(said & described) > 1
        arguments, told = fill_arguments(request, tool, values, meant=meant)
        required = tool.parameters.get("required", ())
        if all(name in arguments for name in required) and (told or (meant and not required)):
            possible.append((len(said & (named | described)), tool, arguments))
    likeness = max((likeness for likeness, _, _ in possible), default=0)
    wanted = [each for each in possible if each[0] == likeness] if likeness else possible[-1:]
    made = {call.name for each in request.rounds for call in each.calls}
    return tuple(_call(request, tool, arguments) for _, tool, arguments in wanted if tool.name not in made)


def spoken_results(request: ModelRequest) -> str:
    """What the calls made so far came to, as sentences."""
    return " ".join(_sentence(output) for each in request.rounds for output in each.outputs if output.strip())


def spoken(value: Any) -> str:
    """A JSON value as people say it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{label(str(name))} {spoken(part)}" for name, part in value.items()) or "nothing"
    if isinstance(value, list):
        between = "; " if any(isinstance(part, dict | list) for part in value) else ", "
        return between.join(spoken(part) for part in value) or "nothing"
    return str(value)


def label(name: str) -> str:
    """A field's name as people say it."""
    return name.replace("_", " ")


def _topics(tool: ToolSpec) -> tuple[set[str], set[str]]:
    """The words of a tool's name and of its description that say what it does, not with what."""
    with_what = {stem for name in tool.parameters.get("properties", {}) for stem in telling(name)}
    return telling(tool.name) - with_what, telling(tool.description) - with_what


def _call(request: ModelRequest, tool: ToolSpec, arguments: dict[str, Any]) -> ToolCall:
    text = json.dumps(arguments, ensure_ascii=False)
    told = f"{len(request.messages)} {request.messages[-1].content} {tool.name} {text}"
    digest = hashlib.sha256(told.encode(errors="replace")).hexdigest()
    return ToolCall(f"call_{digest[:12]}", tool.name, text)


def _sentence(output: str) -> str:
    try:
        text = spoken(json.loads(output))
    except ValueError:
        text = output.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
