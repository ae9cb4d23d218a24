"""strict_schema: the JSON schema of an output, in the form that OpenAI's strict mode asks for."""

from __future__ import annotations

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
    try:
        return _strict(model.model_json_schema()), True
    except _NotStrictError:
        return model.model_json_schema(), False


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    if not _KEYWORDS.issuperset(schema) or schema.get("format", "date") not in _FORMATS:
        raise _NotStrictError
    if "$ref" in schema and len(schema) > 1:
        # A reference may have nothing beside it.
        beside = {key: value for key, value in schema.items() if key not in ("$ref", "default")}
        return {"anyOf": [{"$ref": schema["$ref"]}], **beside}
    strict = {key: value for key, value in schema.items() if key != "default"}
    if schema.get("type") == "object":
        if "properties" not in schema or schema.get("additionalProperties"):
            raise _NotStrictError
        strict |= {"required": list(schema["properties"]), "additionalProperties": False}
    if not schema.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
        raise _NotStrictError  # anything goes, as with `Any`
    for key in ("properties", "$defs"):
        if key in schema:
            strict[key] = {name: _strict(part) for name, part in schema[key].items()}
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    elif schema.get("type") == "array":
        raise _NotStrictError
    if "anyOf" in schema:
        strict["anyOf"] = [_strict(part) for part in schema["anyOf"]]
    return strict
