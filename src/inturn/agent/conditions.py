"""Conditions: in code, which decides by itself, or in words, which the model decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inturn.agent.context import TurnContext
from inturn.errors import AgentDefinitionError

Condition = str | Callable[[TurnContext], bool]
"""Words ("the user wants a refund"), or a function of the turn. What a function raises fails the turn: a
condition that cannot be decided must not be taken for one that does not hold."""

Given = Condition | Sequence[Condition] | None
"""One condition, or several."""


def conditions(given: Given, where: str) -> tuple[Condition, ...]:
    """Return one condition or several as a tuple; `AgentDefinitionError` for what is none."""
    if given is None:
        return ()
    if isinstance(given, tuple):
        return given  # they were checked before
    many: list[Any] = list(given) if isinstance(given, list) else [given]
    for condition in many:
        if not callable(condition) and not (isinstance(condition, str) and condition.strip()):
            raise AgentDefinitionError(
                f"{where} must be words for the model or a function of the turn, such as "
                f'lambda turn: "phone" in turn.data; not {condition!r}'
            )
    return tuple(many)


def functions(given: Given) -> tuple[Callable[[TurnContext], bool], ...]:
    """The conditions in code."""
    return tuple(condition for condition in conditions(given, "conditions") if not isinstance(condition, str))


def words(given: Given) -> str:
    """The conditions in words, joined; empty if all are in code."""
    return "; or ".join(
        condition for condition in conditions(given, "conditions") if isinstance(condition, str)
    )
