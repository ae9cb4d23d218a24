"""Route: one purpose of a conversation, and the steps that serve it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from inturn.agent.step import Condition, Step, field_names, slug
from inturn.errors import AgentDefinitionError
from inturn.session.state import SessionState


@dataclass(frozen=True)
class Route:
    """One purpose of a conversation: a booking, a complaint, a question.

    - `when` says whether the route may be entered: a function of the session decides by code, a sentence is
      for the model to decide. The model also chooses by `title` and `description`.
    - The route is complete when all `required_fields` have values and no step is left. A completed route is
      not entered again in the same session.
    - Fields in `optional_fields` are asked for once and may stay empty; every other field of a step's
      `collect` is asked for until it has a value.
    - `on_complete` is the ID of the route that the next turn goes on with, or a function of the session that
      returns one (or None).

    `id` is stored in sessions and should not change later; by default it is made of the title.
    """

    title: str
    _: KW_ONLY
    id: str = ""
    description: str = ""
    when: str | Condition | None = None
    required_fields: Sequence[str] = ()
    optional_fields: Sequence[str] = ()
    steps: Sequence[Step] = ()
    on_complete: str | Callable[[SessionState], str | None] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.title, str) or not self.title.strip():
            raise AgentDefinitionError('a route has no title; write Route("Book a table", steps=[...])')
        object.__setattr__(self, "id", self.id or slug(self.title))
        object.__setattr__(self, "steps", tuple(self.steps))
        for name in ("required_fields", "optional_fields"):
            object.__setattr__(
                self, name, field_names(getattr(self, name), f"{name} of route {self.title!r}")
            )
        self._check_steps()
        self._check_fields()

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields the route is about, each once: required, optional, then collected by its steps."""
        names = [*self.required_fields, *self.optional_fields]
        names += [name for step in self.steps for name in step.collect]
        return tuple(dict.fromkeys(names))

    def matches(self, session: SessionState) -> bool:
        """Whether code lets the session enter: True unless `when` is a function that says otherwise."""
        return bool(self.when(session)) if callable(self.when) else True

    def position(self, step_id: str | None) -> int:
        """The index of the step with this ID; -1 if the route has none."""
        return next((index for index, step in enumerate(self.steps) if step.id == step_id), -1)

    def open_steps(
        self, session: SessionState, said: int, refused: Collection[str] = ()
    ) -> Iterator[tuple[Step, tuple[str, ...]]]:
        """The steps still to do, in order, each with the fields it still has to fill.

        Steps up to the index `said` were said in this stay. A field in `refused` was answered, but with
        something unusable, so that it is asked again even if it is optional. Nothing left: the route is
        complete.
        """
        found = False
        for index, step in enumerate(self.steps):
            wanted = self._wanted(step, session.data, index <= said, refused)
            if (wanted or (not step.collect and index > said)) and _is_possible(step, session):
                found = True
                yield step, wanted
        if found:
            return
        # A required field outweighs skip_if and requires: without it the route could never end.
        empty = set(missing(self.required_fields, session.data))
        for step in self.steps:
            wanted = tuple(name for name in step.collect if name in empty)
            if wanted:
                yield step, wanted

    def _wanted(
        self, step: Step, data: Mapping[str, Any], said: bool, refused: Collection[str]
    ) -> tuple[str, ...]:
        return tuple(
            name
            for name in missing(step.collect, data)
            if not said or name not in self.optional_fields or name in refused
        )

    def _check_steps(self) -> None:
        seen: dict[str, int] = {}
        for number, step in enumerate(self.steps, 1):
            if not isinstance(step, Step):
                raise AgentDefinitionError(
                    f"step {number} of route {self.title!r} is {type(step).__name__}; write Step({step!r})"
                )
            if step.id in seen:
                raise AgentDefinitionError(
                    f"steps {seen[step.id]} and {number} of route {self.title!r} have the same id "
                    f"{step.id!r}; give one of them another: Step(..., id=...)"
                )
            seen[step.id] = number

    def _check_fields(self) -> None:
        both = sorted(set(self.required_fields) & set(self.optional_fields))
        if both:
            raise AgentDefinitionError(
                f"field {both[0]!r} of route {self.title!r} is in required_fields and in optional_fields; "
                "take it out of one of them"
            )
        collected = {name for step in self.steps for name in step.collect}
        for name in self.required_fields:
            if name not in collected:
                raise AgentDefinitionError(
                    f"required field {name!r} of route {self.title!r} is collected by none of its steps; "
                    f"add Step(..., collect=[{name!r}])"
                )


def missing(names: Sequence[str], data: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of `names` that have no value in `data`; None and the empty string are no values."""
    return tuple(name for name in names if data.get(name) in (None, ""))


def _is_possible(step: Step, session: SessionState) -> bool:
    return not missing(step.requires, session.data) and not (step.skip_if and step.skip_if(session))
