"""Text from anywhere, as a terminal may be shown it."""

from __future__ import annotations

from rich.markup import escape


def plain(text: object, *, lines: bool = False) -> str:
    """The text as nothing but text: it came from anywhere, and a terminal obeys control characters.

    With `lines` it may have several.
    """
    return escape("".join(c if c.isprintable() or (lines and c == "\n") else _escaped(c) for c in str(text)))


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"
