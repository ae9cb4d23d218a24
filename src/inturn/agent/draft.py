"""Draft: a JSON object as far as a model has written it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from inturn.agent.schema import clean


class Draft:
    """The answer to one request while it comes in.

    `fields` are those before the message, once they are all there: from then on `message` grows. A model
    that writes the message first, or no JSON at all, has to be heard to its end.
    """

    def __init__(self, output: type[BaseModel]) -> None:
        self._wanted = set(output.model_fields) - {"message"}
        self._text = ""
        self._broken = False
        self.fields: Mapping[str, Any] | None = None
        self.message = ""

    @property
    def length(self) -> int:
        """Characters so far."""
        return len(self._text)

    def feed(self, text: str) -> None:
        """Take in the next piece."""
        self._text += text
        if self._broken:
            return
        try:
            # Half a number or half an escape is left out, half a text is not.
            data = from_json(self._text, allow_partial="trailing-strings")
        except ValueError:
            # Nothing yet, or a lone surrogate, which a strict parser refuses: wait for the whole.
            self._broken = bool(self._text.strip())
            return
        if isinstance(data, dict) and isinstance(data.get("message"), str):
            if self.fields is None and not self._wanted.issubset(data):
                self._broken = True
                return
            self.fields = self.fields or {key: data[key] for key in data if key != "message"}
            self.message = clean(data["message"])
