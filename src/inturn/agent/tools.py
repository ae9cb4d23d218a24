"""Tool: a function that the model may call, with typed arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, cast, get_type_hints, overload

from docstring_parser import parse
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticSchemaGenerationError,
    ValidationError,
    create_model,
)
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.fields import FieldInfo

from inturn.agent.context import TurnContext
from inturn.agent.provider import ToolSpec
from inturn.errors import AgentDefinitionError, InvalidInputError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

Permit = Callable[[TurnContext, Mapping[str, Any]], bool]


class ToolError(Exception):
    """Raise it in a tool to tell the model why the call failed; the message is for the model's eyes."""


@dataclass(frozen=True)
class Tool:
    """A function that the model may call.

    Its parameters need type hints, and are the arguments that the model has to give; a parameter of the type
    `TurnContext` gets the turn instead. Descriptions come from the docstring: the text before its list of
    parameters, and what it says of each of them (Google's, NumPy's or Sphinx' style), or from
    `Annotated[..., Field(description=...)]`. What it returns, a text or a JSON value, the model reads.

    - `read_only`: it changes nothing anywhere. Calls of one reply then run side by side, and run again if the
      turn has to be taken again. Every other tool is called at most once for each call of the model: if the
      process dies while it runs, the model is told that the outcome is not known.
    - `permit` says whether the call is allowed, given the turn and the checked arguments; False, or anything
      it raises, refuses it. Decide by who the user is and by what was collected, never by what was said.
    - `timeout` is how long a call may take, in seconds. Python cannot stop a function, so that after it the
      function goes on by itself: what it still returns or changes is not used.

    What a call raises does not fail the turn: the model is told that the call failed, with the message of a
    `ToolError`, else with the error's class alone.
    """

    function: Callable[..., Any]
    _: KW_ONLY
    name: str = ""
    description: str = ""
    read_only: bool = False
    permit: Permit | None = None
    timeout: float = 30.0
    arguments: type[BaseModel] = field(init=False, repr=False)
    context_name: str | None = field(init=False, repr=False)
    spec: ToolSpec = field(init=False, repr=False)
    """What the model is told of the tool."""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise AgentDefinitionError(f"a tool must be a function, not {self.function!r}")
        name = self.name or getattr(self.function, "__name__", "")
        if not _NAME.fullmatch(name):
            raise AgentDefinitionError(
                f"{name!r} cannot be a tool's name: up to 64 letters, digits, _ and -; give it one with name="
            )
        if inspect.iscoroutinefunction(self.function):
            raise AgentDefinitionError(f"the tool {name!r} is async; write a plain function (def)")
        if self.timeout <= 0:
            raise AgentDefinitionError(f"the timeout of tool {name!r} must be more than 0 seconds")
        documented = parse(inspect.getdoc(self.function) or "")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "description", self.description or (documented.description or "").strip())
        if not self.description:
            raise AgentDefinitionError(
                f"the tool {name!r} has no description; write a docstring: the model chooses tools by it"
            )
        described = {each.arg_name: each.description or "" for each in documented.params}
        arguments, context_name = _arguments(self.function, name, described)
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "context_name", context_name)
        schema = {key: value for key, value in arguments.model_json_schema().items() if key != "title"}
        object.__setattr__(self, "spec", ToolSpec(name, self.description, schema))

    def check(self, arguments: str) -> BaseModel:
        """Read a call's arguments; `InvalidInputError` tells what is wrong with them, without any value."""
        try:
            return self.arguments.model_validate_json(arguments or "{}")
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}"
                for item in error.errors(include_input=False, include_url=False)
            )
            raise InvalidInputError(f"wrong arguments: {faults}") from None

    def allows(self, context: TurnContext, arguments: BaseModel) -> bool:
        """Whether `permit` allows the call."""
        return self.permit is None or bool(self.permit(context, _plain(arguments)))

    def call(self, context: TurnContext, arguments: BaseModel) -> Any:
        """Call the function."""
        given = _plain(arguments)
        if self.context_name is not None:
            given[self.context_name] = context
        return self.function(**given)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *,
    name: str = ...,
    description: str = ...,
    read_only: bool = ...,
    permit: Permit | None = ...,
    timeout: float = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a function: `@tool`, or `@tool(read_only=True, ...)` with the options of `Tool`."""
    if function is None:
        return lambda function: Tool(function, **options)
    return Tool(function, **options)


def tools(given: Iterable[Tool | Callable[..., Any]], where: str) -> tuple[Tool, ...]:
    """Make tools of what `given` holds; `AgentDefinitionError` if two have one name."""
    made = tuple(each if isinstance(each, Tool) else Tool(each) for each in given)
    names = [each.name for each in made]
    for name in names:
        if names.count(name) > 1:
            raise AgentDefinitionError(f"{where} has two tools {name!r}; give one another name=")
    return made


def _plain(arguments: BaseModel) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in type(arguments).model_fields}


def _arguments(
    function: Callable[..., Any], name: str, described: Mapping[str, str]
) -> tuple[type[BaseModel], str | None]:
    """A model of the function's arguments, and the parameter that wants the turn."""
    try:
        signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise AgentDefinitionError(f"the signature of tool {name!r} cannot be read: {error}") from None
    fields: dict[str, Any] = {}
    context_name = None
    for parameter in signature.parameters.values():
        hint = hints.get(parameter.name)
        if isinstance(hint, type) and issubclass(hint, TurnContext):
            context_name = parameter.name
            continue
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise AgentDefinitionError(
                f"parameter {parameter.name!r} of tool {name!r} cannot be given by name; write it out"
            )
        if hint is None:
            raise AgentDefinitionError(
                f"parameter {parameter.name!r} of tool {name!r} has no type; write {parameter.name}: str"
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        info = FieldInfo.from_annotation(hint)
        text = info.description or described.get(parameter.name)
        fields[parameter.name] = (hint, Field(default, description=text or None))
    try:
        model = create_model(name, __config__=cast(Any, ConfigDict(extra="forbid")), **fields)
        model.model_json_schema()
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, NameError) as error:
        reason = str(error).splitlines()[0]
        raise AgentDefinitionError(f"the arguments of tool {name!r} have no JSON schema: {reason}") from None
    return model, context_name
