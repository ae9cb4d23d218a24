"""Schema: the fields an agent collects, how a model is asked for them, and which values are accepted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Optional, Union, cast

from pydantic import BaseModel, Field, ValidationError, create_model, field_validator
from pydantic.fields import FieldInfo

from inturn.errors import AgentDefinitionError, InvalidInputError
from inturn.values import to_json

DONE = "done"
"""What `next_step` holds when no step is left."""

NO_ROUTE = "none"
"""What `route` holds when no route serves the message."""

RESERVED = ("message", "next_step", "decisions", "switch_route")
"""Names the output of a turn uses itself; no field of a schema may have them."""


class Digest(BaseModel):
    """The output asked for where a conversation is to be summed up."""

    summary: str = Field(description="The summary.")


class Reply(BaseModel):
    """The output asked for where only a message is wanted."""

    message: str = Field(description="The reply to the user.")


class Accepted(NamedTuple):
    """Values that are valid, as JSON values; and fields whose value is not, with the reason."""

    values: dict[str, Any]
    refused: dict[str, str]


class Schema:
    """The fields of a pydantic model, taken one by one, because a conversation fills them one by one.

    Values are kept as JSON values (a date is `"2026-10-01"`), so that they are the same before and after
    they were stored. Field validators of the model apply; validators of the whole model do not.
    """

    def __init__(self, model: type[BaseModel] | None) -> None:
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise AgentDefinitionError(
                f"schema must be a class derived from pydantic.BaseModel, not {model!r}"
            )
        self.model = model
        self.fields: Mapping[str, FieldInfo] = {} if model is None else model.model_fields
        for name in RESERVED:
            if name in self.fields:
                raise AgentDefinitionError(
                    f"the schema has a field {name!r}, a name the agent needs; rename it"
                )
        self._validators = {
            name: _one_field_model(cast(type[BaseModel], model), name) for name in self.fields
        }

    def check_names(self, names: Iterable[str], where: str) -> None:
        """Raise `AgentDefinitionError` for a name that is no field, with the closest one that is."""
        for name in names:
            if name in self.fields:
                continue
            if not self.fields:
                raise AgentDefinitionError(
                    f"{where} names {name!r}, but the agent has no schema; write Agent(..., schema=...)"
                )
            close = difflib.get_close_matches(str(name), self.fields, n=1)
            mend = f"did you mean {close[0]!r}?" if close else f"the schema has {', '.join(self.fields)}"
            raise AgentDefinitionError(f"{where} names {name!r}, which is no field of the schema; {mend}")

    def accept(self, values: Mapping[str, Any]) -> Accepted:
        """Check what a model says was stated, field by field.

        None and blank strings state nothing; names that are no fields are ignored. The reasons are
        pydantic's messages.
        """
        accepted = Accepted({}, {})
        for name in self.fields:
            value = clean(values.get(name))
            if value is None or (isinstance(value, str) and not value.strip()):
                continue
            try:
                accepted.values[name] = self._validated(name, value)
            except InvalidInputError as error:
                accepted.refused[name] = str(error)
        return accepted

    def check(self, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Check data that the application sets: `InvalidInputError` for a wrong value or an unknown name.

        None is allowed: it empties a field.
        """
        for name in patch:
            if name not in self.fields:
                raise InvalidInputError(
                    f"{name!r} is no field of the schema; it has {', '.join(self.fields)}"
                )
        checked = {}
        for name, value in patch.items():
            try:
                checked[name] = None if value is None else self._validated(name, value)
            except InvalidInputError as error:
                raise InvalidInputError(f"{name}: {error}") from None
        return checked

    def _validated(self, name: str, value: Any) -> Any:
        try:
            holder = self._validators[name].model_validate({name: value})
        except ValidationError as error:
            reason = error.errors(include_input=False)[0]["msg"]
            raise InvalidInputError(reason.removeprefix("Value error, ")) from None
        plain = holder.model_dump(mode="json")[name]
        to_json(plain, name)
        return plain

    def output(
        self, steps: Iterable[str] = (), worded: Mapping[str, str] | None = None, others: Iterable[str] = ()
    ) -> type[BaseModel]:
        """The output asked for in a turn: fields, decisions, where to go on, and a message.

        `steps` are the IDs that `next_step` may name, `worded` the conditions in words that `decisions` tells
        of, `others` the IDs of the routes that `switch_route` may name; what is empty is not asked for.

        Each field may be null. Limits of the fields are left out on purpose: a model that may not answer
        50 would answer something else, whereas a stated 50 is refused here and asked again. The message
        comes last, so that it is written once the values are known.
        """
        fields: dict[str, Any] = {
            name: (Union[field.annotation, None], Field(description=field.description))  # noqa: UP007
            for name, field in self.fields.items()
        }
        if worded:
            decisions: dict[str, Any] = {
                key: (bool | None, Field(description=f"Is it so that {words}?"))
                for key, words in worded.items()
            }
            fields["decisions"] = (
                create_model("Decisions", **decisions),
                Field(description="Each null unless the conversation decides it."),
            )
        if routes := tuple(others):
            fields["switch_route"] = (
                Optional[Literal[routes]],  # noqa: UP045
                Field(description="The route that the last message asks for instead; null to stay."),
            )
        if ids := tuple(steps):
            fields["next_step"] = (
                Literal[(*ids, DONE)],
                Field(description=f"The open step that the message serves; {DONE!r} if none is left."),
            )
        fields["message"] = (str, Field(description="The reply to the user."))
        return create_model("Turn", **fields)


def clean(value: Any) -> Any:
    """Take out of a JSON value what no store can keep: NUL goes, a lone surrogate becomes U+FFFD."""
    if isinstance(value, str):
        text = value.replace("\x00", "")
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def choice_output(route_ids: Iterable[str]) -> type[BaseModel]:
    """The output asked for where a route is to be chosen."""
    return create_model(
        "Choice",
        route=(
            cast(Any, Literal[(*route_ids, NO_ROUTE)]),
            Field(description=f"The route that serves the user's message; {NO_ROUTE!r} if none does."),
        ),
    )


def _one_field_model(model: type[BaseModel], name: str) -> type[BaseModel]:
    field = model.model_fields[name]
    validators = {
        attribute: field_validator(name, mode=decorator.info.mode)(staticmethod(getattr(model, attribute)))
        for attribute, decorator in model.__pydantic_decorators__.field_validators.items()
        if name in decorator.info.fields or "*" in decorator.info.fields
    }
    config = {**model.model_config, "validate_by_name": True}
    definition: dict[str, Any] = {name: (field.annotation, field)}
    return create_model(
        f"{model.__name__}_{name}",
        __config__=cast(Any, config),
        __validators__=cast(Any, validators),
        **definition,
    )
