"""Step: one thing a route does, such as asking for a date."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass

from inturn.errors import AgentDefinitionError
from inturn.session.state import SessionState

Condition = Callable[[SessionState], bool]
"""Decides by code. It sees the session as the turn has it so far; what it raises fails the turn."""


@dataclass(frozen=True)
class Step:
    """One thing to say or to ask.

    `prompt` tells the model what to say; write it so that it could be said as it stands ("How many people
    will come?"). `collect` names the fields of the agent's schema that the answer should fill: the step is
    done once they have values, whoever filled them and when. A step without `collect` is done once it was
    said. A step waits until all fields in `requires` have values, and is passed over while `skip_if` is
    true, unless only this step can still fill one of its route's required fields.

    `id` is stored in sessions and should not change later; by default it is made of `collect`, else of the
    description or the prompt.
    """

    prompt: str
    _: KW_ONLY
    id: str = ""
    description: str = ""
    collect: Sequence[str] = ()
    requires: Sequence[str] = ()
    skip_if: Condition | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise AgentDefinitionError('a step has no prompt; write Step("What to ask or to say")')
        for name in ("collect", "requires"):
            object.__setattr__(
                self, name, field_names(getattr(self, name), f"{name} of step {self.prompt!r}")
            )
        if self.skip_if is not None and not callable(self.skip_if):
            raise AgentDefinitionError(
                f"skip_if of step {self.prompt!r} must be a function of the session, such as "
                'lambda session: "phone" in session.data'
            )
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
