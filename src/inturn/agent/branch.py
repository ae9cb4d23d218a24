"""Branch: where a route goes on after a step, other than with the next one."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from inturn.agent.conditions import Given, conditions
from inturn.errors import AgentDefinitionError


@dataclass(frozen=True)
class Branch:
    """Where to go once a step is done, if the condition holds; the first branch of a step that does counts.

    - `to` is the ID of a later step of the same route; what lies between is passed over. `"done"` ends
      the route as well.
    - `route` is the ID of another route: this one is left then, complete if it has all the fields it
      requires, and the next turn goes on there.
    - `when` holds if all its functions do and, where it has words, the model says that these hold. Without it
      the branch is always taken. What the model decided is kept with the session, until it decides anew.
    """

    to: str = ""
    _: KW_ONLY
    when: Given = None
    route: str = ""

    def __post_init__(self) -> None:
        if bool(self.to) == bool(self.route):
            raise AgentDefinitionError(
                'a branch leads to a step or to a route; write Branch("step-id", when=...) or '
                'Branch(route="route-id", when=...)'
            )
        object.__setattr__(
            self, "when", conditions(self.when, f"when of the branch to {self.to or self.route!r}")
        )
