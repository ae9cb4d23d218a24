"""strict_schema: every property required, no others; what strict mode cannot take is asked for plainly."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from inturn.agent.json_schema import strict_schema


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
