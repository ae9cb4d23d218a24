"""Route: one purpose of a conversation, and the steps that serve it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

from inturn.agent.branch import Branch
from inturn.agent.conditions import Given, conditions, functions, words
from inturn.agent.context import TurnContext
from inturn.agent.schema import DONE
from inturn.agent.step import Step, field_names, slug
from inturn.agent.tools import Tool, tools
from inturn.errors import AgentDefinitionError


class OpenStep(NamedTuple):
    """A step that is still to do, and the fields it still has to fill."""

    step: Step
    fields: tuple[str, ...]


class Path(NamedTuple):
    """What is left of a route: its open steps in order, and the branch that ended it, if one did."""

    steps: list[OpenStep]
    end: Branch | None


@dataclass(frozen=True)
class Route:
    """One purpose of a conversation: a booking, a complaint, a question.

    - `when` says whether the route may be entered: a function of the turn decides by code, words are for the
      model to decide, several functions must all hold. Code comes first: what it closes the model is not even
      shown. The model also chooses by `title` and `description`.
    - The route is complete when all `required_fields` have values and no step is left. A completed route is
      entered again in the same session only if it is `reentrant`; its fields are then empty again.
    - Fields in `optional_fields` are asked for once and may stay empty; every other field of a step's
      `collect` is asked for until it has a value.
    - `initial_data` is merged into the data when the route is entered, where a field has no value yet.
    - `instructions` are the model's while it is in the route, `tools` as well. `closing` says how it is to
      close the route once all is collected (default: sum up and confirm).
    - `on_complete` is the ID of the route that the next turn goes on with, or a function of the turn that
      returns one (or None).

    `id` is stored in sessions and should not change later; by default it is made of the title.
    """

    title: str
    _: KW_ONLY
    id: str = ""
    description: str = ""
    when: Given = None
    required_fields: Sequence[str] = ()
    optional_fields: Sequence[str] = ()
    initial_data: Mapping[str, Any] = field(default_factory=dict)
    instructions: str = ""
    steps: Sequence[Step] = ()
    tools: Sequence[Tool | Callable[..., Any]] = ()
    reentrant: bool = False
    closing: str = ""
    on_complete: str | Callable[[TurnContext], str | None] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.title, str) or not self.title.strip():
            raise AgentDefinitionError('a route has no title; write Route("Book a table", steps=[...])')
        where = f"route {self.title!r}"
        object.__setattr__(self, "id", self.id or slug(self.title))
        object.__setattr__(self, "when", conditions(self.when, f"when of {where}"))
        object.__setattr__(self, "tools", tools(self.tools, f"tools of {where}"))
        object.__setattr__(self, "initial_data", dict(self.initial_data))
        for name in ("required_fields", "optional_fields"):
            object.__setattr__(self, name, field_names(getattr(self, name), f"{name} of {where}"))
        both = sorted(set(self.required_fields) & set(self.optional_fields))
        if both:
            raise AgentDefinitionError(
                f"field {both[0]!r} of {where} is in required_fields and in optional_fields; "
                "take it out of one of them"
            )
        given, steps = self.steps, ()
        object.__setattr__(self, "steps", steps)
        for step in given:
            self._add(step)

    def step(self, prompt: str, **options: Any) -> Callable[[Callable[[TurnContext], str]], Step]:
        """Add a step that says what the decorated function of the turn returns.

        `options` are those of `Step`; the ID is the function's name unless `id=` gives another. Steps are
        added before the agent is made.
        """

        def add(reply: Callable[[TurnContext], str]) -> Step:
            made = Step(prompt, reply=reply, **{"id": getattr(reply, "__name__", ""), **options})
            self._add(made)
            return made

        return add

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields the route is about, each once: required, optional, then collected by its steps."""
        names = [*self.required_fields, *self.optional_fields]
        names += [name for step in self.steps for name in step.collect]
        return tuple(dict.fromkeys(names))

    @property
    def worded(self) -> dict[str, str]:
        """The conditions in words of its steps and branches, by the keys under which they are decided."""
        return {key: said for step in self.steps for key, given in _keyed(step) if (said := words(given))}

    def matches(self, turn: TurnContext) -> bool:
        """Whether code lets the session enter: all functions in `when` say so."""
        return all(each(turn) for each in functions(self.when))

    def position(self, step_id: str | None) -> int:
        """The index of the step with this ID; -1 if the route has none."""
        return next((index for index, step in enumerate(self.steps) if step.id == step_id), -1)

    def path(self, turn: TurnContext, said: int, refused: Collection[str] = ()) -> Path:
        """What is still to do.

        Steps up to the index `said` were said in this stay. A field in `refused` was answered, but with
        something unusable, so that it is asked again even if it is optional. Nothing left: the route is
        complete.
        """
        steps: list[OpenStep] = []
        end: Branch | None = None
        index = 0
        while index < len(self.steps):
            step = self.steps[index]
            wanted = self._wanted(step, turn.data, index <= said, refused)
            to_do = bool(wanted) if step.collect else index > said
            branch = None
            if to_do and self._is_possible(step, turn):
                steps.append(OpenStep(step, wanted))
            elif not to_do:
                branch = self._taken(step, turn)
            if branch is not None and (branch.route or branch.to == DONE):
                end = branch
                break
            index = index + 1 if branch is None else self.position(branch.to)
        if not steps and end is None:
            # A required field outweighs skip_if and requires: without it the route could never end.
            empty = set(missing(self.required_fields, turn.data))
            for step in self.steps:
                if wanted := tuple(name for name in step.collect if name in empty):
                    steps.append(OpenStep(step, wanted))
        return Path(steps, end)

    def _wanted(
        self, step: Step, data: Mapping[str, Any], said: bool, refused: Collection[str]
    ) -> tuple[str, ...]:
        return tuple(
            name
            for name in missing(step.collect, data)
            if not said or name not in self.optional_fields or name in refused
        )

    def _is_possible(self, step: Step, turn: TurnContext) -> bool:
        if missing(step.requires, turn.data):
            return False
        skipped = any(each(turn) for each in functions(step.skip_if))
        return not skipped and not _decisions(turn).get(skip_key(step), False)

    def _taken(self, step: Step, turn: TurnContext) -> Branch | None:
        decisions = _decisions(turn)
        for number, branch in enumerate(step.branches):
            in_words = not words(branch.when) or decisions.get(branch_key(step, number), False)
            if in_words and all(each(turn) for each in functions(branch.when)):
                return branch
        return None

    def seal(self) -> None:
        """Take no more steps: an agent was made with this route, and has checked it."""
        object.__setattr__(self, "_sealed", True)

    def _add(self, step: Step) -> None:
        if getattr(self, "_sealed", False):
            raise AgentDefinitionError(
                f"route {self.title!r} belongs to an agent already; add its steps before Agent(...)"
            )
        number = len(self.steps) + 1
        if not isinstance(step, Step):
            raise AgentDefinitionError(
                f"step {number} of route {self.title!r} is {type(step).__name__}; write Step({step!r})"
            )
        taken = self.position(step.id)
        if taken >= 0:
            raise AgentDefinitionError(
                f"steps {taken + 1} and {number} of route {self.title!r} have the same id "
                f"{step.id!r}; give one of them another: Step(..., id=...)"
            )
        object.__setattr__(self, "steps", (*self.steps, step))


def missing(names: Sequence[str], data: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of `names` that have no value in `data`; None and the empty string are no values."""
    return tuple(name for name in names if data.get(name) in (None, ""))


def skip_key(step: Step) -> str:
    """The key under which the words of a step's `skip_if` are decided."""
    return f"skip_{_key(step.id)}"


def branch_key(step: Step, number: int) -> str:
    """The key under which the words of a step's branch are decided."""
    return f"branch_{_key(step.id)}_{number + 1}"


def _key(step_id: str) -> str:
    return slug(step_id).replace("-", "_")


def _keyed(step: Step) -> list[tuple[str, Given]]:
    branches = [(branch_key(step, number), each.when) for number, each in enumerate(step.branches)]
    return [(skip_key(step), step.skip_if), *branches]


def _decisions(turn: TurnContext) -> Mapping[str, bool]:
    stay = turn.session.stay
    return stay.decisions if stay else {}
