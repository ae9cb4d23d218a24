"""Text from anywhere, as a terminal may be shown it."""

from __future__ import annotations

from rich.markup import escape

from inturn.values import printable


def plain(text: object, *, lines: bool = False) -> str:
    """The text as nothing but text, for rich: it came from anywhere. With `lines` it may have several."""
    return escape(printable(str(text), lines=lines))
