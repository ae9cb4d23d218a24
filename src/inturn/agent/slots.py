"""Slots: what can be read out of a message by rules: a field of a schema, an argument of a tool."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from math import inf
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_CODES = {"id", "number", "no", "code", "reference", "ref", "sku"}


@dataclass(frozen=True)
class Slot:
    """Something to fill.

    `kind` is `bool`, `int`, `float`, `date`, `time`, `choice` (one of `options`), `email`, `phone`, `name`,
    `code` (an order's number, say), `text`, or `other`, which no rule fills. `about` is its name and its
    description, in words. A tool's argument tells between which numbers it may be.
    """

    kind: str
    about: str
    options: tuple[Any, ...] = ()
    least: float = -inf
    most: float = inf

    def takes(self, value: Any) -> bool:
        """Whether a value is one of the options, if there are any, and within the limits."""
        if self.options:
            return value in self.options
        return not isinstance(value, int | float) or self.least <= value <= self.most


def field_slot(name: str, field: FieldInfo) -> Slot:
    """The slot of a pydantic field."""
    base = _base(field.annotation)
    about = _about(name, field.description)
    if base is bool:
        return Slot("bool", about)
    if options := _options(base):
        return Slot("choice", about, options)
    if base in (int, float, date, time):
        return Slot(str(base.__name__), about)
    if getattr(base, "__name__", "") == "EmailStr":
        return Slot("email", about)
    return Slot(_text_kind(name) if base is str else "other", about)


def argument_slots(schema: Mapping[str, Any]) -> dict[str, Slot]:
    """The slots of a tool's arguments, by name, from their JSON schema."""
    definitions = schema.get("$defs", {})
    return {
        name: _argument_slot(name, part, definitions) for name, part in schema.get("properties", {}).items()
    }


def _argument_slot(name: str, part: Mapping[str, Any], definitions: Mapping[str, Any]) -> Slot:
    about = _about(name, part.get("description"))
    variants = [each for each in part.get("anyOf", [part]) if each.get("type") != "null"]
    plain = variants[0] if len(variants) == 1 else {}
    if "$ref" in plain:
        plain = definitions.get(plain["$ref"].rpartition("/")[2], {})
    if "enum" in plain or "const" in plain:
        return Slot("choice", about, tuple(plain.get("enum", [plain.get("const")])))
    kind = {"boolean": "bool", "integer": "int", "number": "float"}.get(plain.get("type", ""), "other")
    if plain.get("type") == "string":
        form = plain.get("format")
        kind = form if form in ("date", "time", "email") else "other" if form else _text_kind(name)
    return Slot(kind, about, least=plain.get("minimum", -inf), most=plain.get("maximum", inf))


def _text_kind(name: str) -> str:
    words = set(name.lower().split("_"))
    if words & {"email", "mail"}:
        return "email"
    if words & {"phone", "telephone", "mobile", "tel", "cell"}:
        return "phone"
    if "name" in words:
        return "name"
    return "code" if words & _CODES else "text"


def _about(name: str, description: str | None) -> str:
    return f"{name.replace('_', ' ')} {description or ''}".lower()


def _base(annotation: Any) -> Any:
    """The type without None and annotations: `date` of `Annotated[date, ...] | None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _base(get_args(annotation)[0])
    if origin in (Union, UnionType):
        rest = [arg for arg in get_args(annotation) if arg is not NoneType]
        return _base(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _options(base: Any) -> tuple[Any, ...]:
    if get_origin(base) is Literal:
        return get_args(base)
    if isinstance(base, type) and issubclass(base, enum.Enum):
        return tuple(member.value for member in base)
    return ()
