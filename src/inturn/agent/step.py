"""Step: one thing a route does, such as asking for a date."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from inturn.agent.branch import Branch
from inturn.agent.conditions import Given, conditions
from inturn.agent.context import TurnContext
from inturn.agent.tools import Tool, tools
from inturn.errors import AgentDefinitionError


@dataclass(frozen=True)
class Step:
    """One thing to say or to ask.

    - `prompt` tells the model what to say; write it so that it could be said as it stands ("How many people
      will come?"). With `reply`, a text or a function of the turn, code says it instead, word for word.
    - `collect` names the fields of the agent's schema that the answer should fill: the step is done once they
      have values, whoever filled them and when. A step without `collect` is done once it was said.
    - A step waits until all fields in `requires` have values, and is passed over while a condition in
      `skip_if` holds, unless only this step can still fill one of its route's required fields.
    - `branches` say where the route goes on once the step is done.
    - `tools` may be called by the model while the step is due, or being answered.
    - `prepare` is called before the step is said: it may load what the step talks about. `finalize` is called
      when a turn has done the step. Both see the turn, at most once in it, and change the session with its
      commit or not at all; what they do elsewhere happens again if the turn has to be taken again (see
      `TurnContext.once`). `prepare` may also be called for a step that the message then answers or passes.

    `id` is stored in sessions and should not change later; by default it is made of `collect`, else of the
    description or the prompt.
    """

    prompt: str
    _: KW_ONLY
    id: str = ""
    description: str = ""
    collect: Sequence[str] = ()
    requires: Sequence[str] = ()
    skip_if: Given = None
    branches: Sequence[Branch] = ()
    tools: Sequence[Tool | Callable[..., Any]] = ()
    reply: str | Callable[[TurnContext], str] | None = None
    prepare: Callable[[TurnContext], None] | None = None
    finalize: Callable[[TurnContext], None] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise AgentDefinitionError('a step has no prompt; write Step("What to ask or to say")')
        where = f"step {self.prompt!r}"
        for name in ("collect", "requires"):
            object.__setattr__(self, name, field_names(getattr(self, name), f"{name} of {where}"))
        object.__setattr__(self, "skip_if", conditions(self.skip_if, f"skip_if of {where}"))
        object.__setattr__(self, "branches", tuple(self.branches))
        for branch in self.branches:
            if not isinstance(branch, Branch):
                raise AgentDefinitionError(
                    f'branches of {where} holds a {type(branch).__name__}; write Branch("step-id", when=...)'
                )
        object.__setattr__(self, "tools", tools(self.tools, f"tools of {where}"))
        if self.reply is not None and not callable(self.reply) and not isinstance(self.reply, str):
            raise AgentDefinitionError(f"reply of {where} must be a text or a function of the turn")
        for name in ("prepare", "finalize"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise AgentDefinitionError(f"{name} of {where} must be a function of the turn")
        if not self.id:
            object.__setattr__(self, "id", "-".join(self.collect) or slug(self.description or self.prompt))


def slug(text: str) -> str:
    """Make an ID of a title: lower case, words joined by hyphens, at most 60 characters."""
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:60].strip("-")


def field_names(names: Iterable[str], where: str) -> tuple[str, ...]:
    """Return `names` as a tuple; one bare string is the usual slip and an `AgentDefinitionError`."""
    if isinstance(names, str):
        raise AgentDefinitionError(f"{where} must be a list of field names; write [{names!r}]")
    return tuple(names)
