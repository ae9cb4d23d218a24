"""Values that every store can keep: text and JSON as they are let in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from inturn.errors import InvalidInputError

_JSONABLE: TypeAdapter[Any] = TypeAdapter(Any)


def to_json(value: Any, field: str) -> str:
    """Encode a JSON value; dates and pydantic models inside become what pydantic makes of them."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{field} contains a lone surrogate, which no store can keep") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{field} is not JSON: {type(error).__name__}: {error}") from None
    if "\\u0000" in text and _has_nul(json.loads(text)):
        raise InvalidInputError(f"{field} contains a NUL character, which no store can keep")
    return text


def to_text(value: str, field: str) -> str:
    """Return `value` if every backend can keep it."""
    if "\x00" in value:
        raise InvalidInputError(f"{field} contains a NUL character at {value.index(chr(0))}; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{field} contains a lone surrogate at {error.start}, which no store can keep; replace it"
        ) from None
    return value


def printable(text: str, *, lines: bool = False) -> str:
    """Text as nothing but text, for terminals and logs: control characters, which they obey, are escaped.

    With `lines` it may have several.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or (lines and c == "\n") else _escaped(c) for c in text)


def check_images(images: object) -> list[str]:
    """Return the images of a message as a list of URLs; raises `InvalidInputError` for what is none.

    An image is an `https:` URL that the model's provider can fetch, or a `data:image/...` URL that holds the
    image itself.
    """
    if isinstance(images, str) or not isinstance(images, Iterable):
        raise InvalidInputError("images must be a list of URLs")
    checked = []
    for image in images:
        if not isinstance(image, str) or not image.startswith(("https://", "data:image/")):
            raise InvalidInputError("an image must be an https: URL, or a data:image/ URL with its content")
        checked.append(to_text(image, "image"))
    return checked


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"


def _plain(value: Any) -> Any:
    return _JSONABLE.dump_python(value, mode="json")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(_has_nul, value))
    return False
