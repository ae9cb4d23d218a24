"""Hooks: the application's own code around a turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inturn.contract import Response
from inturn.errors import AgentDefinitionError

Context = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Functions that are called in a turn; each may be left out.

    All but `after_respond` are part of the turn: what they change is committed with it, or not at all, and
    what they raise fails it. A turn that has to be taken again, because its worker died or the store moved
    on, calls them again on the session as it was before: in the session each counts once, whatever they do
    elsewhere may happen once more.
    """

    before_respond: Callable[[Context], Mapping[str, Any] | None] | None = None
    """Called first, once, with the context; `session_id`, `user_id` and `turn_id` are in it. What it returns
    becomes the context; None leaves it as it is."""

    on_context_update: Callable[[Context, Context], None] | None = None
    """Called after each change of the context, with the new and the previous one."""

    on_data_update: Callable[[dict[str, Any], dict[str, Any]], Mapping[str, Any] | None] | None = None
    """Called once for each change of the collected data, with the new and the previous data. What it returns
    is the data instead, and must be valid for the schema; None leaves the new data."""

    after_respond: Callable[[Response], None] | None = None
    """Called once the turn is committed, with its response. At most once: a process that dies between the two
    never calls it, and a turn that was committed before is only looked up. What it raises is logged, for the
    turn is over. Deliver replies with a channel, not here."""

    def __post_init__(self) -> None:
        for name in ("before_respond", "on_context_update", "on_data_update", "after_respond"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise AgentDefinitionError(f"the hook {name} must be a function")
