"""JSON schemas in the form that OpenAI's strict mode asks for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

_KEYWORDS = frozenset(
    "$defs $ref additionalProperties anyOf const default description enum exclusiveMaximum exclusiveMinimum "  # noqa: SIM905
    "format items maxItems maximum minItems minimum multipleOf pattern properties required title type".split()
)
_FORMATS = frozenset(["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"])


class _NotStrictError(Exception):
    pass


@lru_cache(maxsize=256)
def strict_schema(model: type[BaseModel]) -> tuple[dict[str, Any], bool]:
    """The JSON schema of `model`, and whether strict mode can take it.

    Strict mode wants every property required and no others, and knows only some keywords: a dictionary
    with free keys, for example, cannot be asked for strictly.
    """
    schema = model.model_json_schema()
    try:
        return _strict(schema), True
    except _NotStrictError:
        return schema, False


def strict_parameters(schema: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The JSON schema of a tool's arguments, and whether strict mode can take it.

    As `strict_schema`, except for arguments that may be left out. Strictly, a model has to state them all,
    and would have to invent a value; so such an argument is only asked for strictly if null stands for it.
    """
    plain = dict(schema)
    try:
        if plain.get("type") != "object":
            raise _NotStrictError
        return _strict(plain, invents=False), True
    except _NotStrictError:
        return plain, False


def _strict(schema: Mapping[str, Any], *, invents: bool = True) -> dict[str, Any]:
    if not _KEYWORDS.issuperset(schema) or schema.get("format", "date") not in _FORMATS:
        raise _NotStrictError
    if "$ref" in schema and len(schema) > 1:
        # A reference may have nothing beside it.
        beside = {key: value for key, value in schema.items() if key not in ("$ref", "default")}
        return {"anyOf": [{"$ref": schema["$ref"]}], **beside}
    strict = {key: value for key, value in schema.items() if key != "default"}
    types = schema.get("type")
    if isinstance(types, list) and {"array", "object"}.intersection(types):
        raise _NotStrictError
    if types == "object":
        if "properties" not in schema or schema.get("additionalProperties"):
            raise _NotStrictError
        optional = schema["properties"].keys() - set(schema.get("required", ()))
        if not invents and not all(_null_means_none(schema["properties"][name]) for name in optional):
            raise _NotStrictError
        strict |= {"required": list(schema["properties"]), "additionalProperties": False}
    if not schema.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
        raise _NotStrictError  # anything goes, as with `Any`
    for key in ("properties", "$defs"):
        if key in schema:
            strict[key] = {name: _strict(part, invents=invents) for name, part in schema[key].items()}
    if "items" in schema:
        strict["items"] = _strict(schema["items"], invents=invents)
    elif types == "array":
        raise _NotStrictError
    if "anyOf" in schema:
        strict["anyOf"] = [_strict(part, invents=invents) for part in schema["anyOf"]]
    return strict


def _null_means_none(schema: Mapping[str, Any]) -> bool:
    """Whether a property that is null is the same as one that is left out."""
    takes_null = {"type": "null"} in schema.get("anyOf", ()) or "null" in [schema.get("type")]
    return takes_null and schema.get("default", "") is None
