"""Strict schemas: every property required, no others; what strict mode cannot take is asked for plainly."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from inturn.agent.json_schema import strict_parameters, strict_schema


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Item(BaseModel):
    name: str = "tea"
    colour: Colour = Field(Colour.red, description="Its colour")


class Plain(BaseModel):
    when: dt.datetime | None
    kind: Literal["a", "b"]
    one: Literal["x"]
    items: list[Item] = []
    first: Item = Field(description="The first one")


class Free(BaseModel):
    anything: dict[str, int]


class Untyped(BaseModel):
    anything: Any


class Pair(BaseModel):
    both: tuple[int, str]


def test_a_strict_schema_requires_everything_and_allows_nothing_else() -> None:
    schema, strict = strict_schema(Plain)

    assert strict
    for part in (schema, schema["$defs"]["Item"]):
        assert part["required"] == list(part["properties"])
        assert part["additionalProperties"] is False
    item = schema["$defs"]["Item"]["properties"]
    assert item["name"] == {"title": "Name", "type": "string"}
    assert item["colour"] == {"anyOf": [{"$ref": "#/$defs/Colour"}], "description": "Its colour"}
    assert schema["properties"]["first"] == {
        "anyOf": [{"$ref": "#/$defs/Item"}],
        "description": "The first one",
    }


@pytest.mark.parametrize("model", [Free, Untyped, Pair])
def test_what_strict_mode_cannot_take_is_asked_for_plainly(model: type[BaseModel]) -> None:
    schema, strict = strict_schema(model)

    assert not strict
    assert schema == model.model_json_schema()


class Whom(BaseModel):
    name: str
    city: str | None = None


class Many(BaseModel):
    whom: list[Whom]


class Limited(BaseModel):
    limit: int = 20


class Switched(BaseModel):
    limit: int | None = 20


class Sloppy(BaseModel):
    limit: int = None  # type: ignore[assignment]


class Nested(BaseModel):
    limits: list[Limited]


@pytest.mark.parametrize("model", [Whom, Many])
def test_arguments_for_which_null_stands_are_asked_for_strictly(model: type[BaseModel]) -> None:
    schema, strict = strict_parameters(model.model_json_schema())

    assert strict
    for part in [schema, *schema.get("$defs", {}).values()]:
        assert part["required"] == list(part["properties"])
        assert part["additionalProperties"] is False


@pytest.mark.parametrize("model", [Limited, Switched, Sloppy, Nested])
def test_a_model_need_not_invent_an_argument_that_may_be_left_out(model: type[BaseModel]) -> None:
    plain = model.model_json_schema()

    assert strict_parameters(plain) == (plain, False)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"name": {"type": "string"}}},  # may be left out
        {"type": "object", "properties": {"it": {"type": ["object", "null"]}}, "required": ["it"]},
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": True},
        {"properties": {}},
    ],
)
def test_schemas_written_by_hand_are_left_as_they_are_if_need_be(schema: dict[str, Any]) -> None:
    assert strict_parameters(schema) == (schema, False)


def test_a_tool_without_arguments_is_offered_strictly() -> None:
    schema, strict = strict_parameters({"type": "object", "properties": {}})

    assert strict
    assert schema == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
