"""Splitting: a long text in parts that a channel takes, cut where a reader would pause."""

from __future__ import annotations

import re
from collections.abc import Callable

_PAUSES = (
    re.compile(r"\n\s*\n"),
    re.compile(r"\n"),
    re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|(?<=[。！？])"),
    re.compile(r"(?<=[,;:，；：])\s+"),
    re.compile(r"\s+"),
)
"""From the best place to cut to the worst: paragraphs, lines, sentences, clauses, words."""


def split_text(text: str, most: int, size: Callable[[str], int] = len) -> list[str]:
    """Split `text` into parts of at most `most` by `size`; nothing but white space at the cuts is lost.

    A part ends with a paragraph, else a line, a sentence, a clause, a word; a word that is itself too long is
    cut between characters, never within a combined one. `size` counts what the channel counts, and grows with
    the text.
    """
    parts: list[str] = []
    rest = text.strip()
    while size(rest) > most:
        fits = _longest(rest, most, size)
        cut, gap = _cut(rest, fits)
        parts.append(rest[:cut].rstrip())
        rest = rest[gap:].lstrip()
    return [*parts, rest] if rest else parts


def _longest(text: str, most: int, size: Callable[[str], int]) -> int:
    """How many characters fit, at least one."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if size(text[:middle]) <= most:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str, fits: int) -> tuple[int, int]:
    """Where the part ends, and where the rest begins."""
    for pause in _PAUSES:
        found = None
        for match in pause.finditer(text, 0, min(len(text), fits + 1)):
            # A cut near the beginning makes many small parts: a worse pause further on is the better cut.
            if fits // 4 < match.start() <= fits:
                found = match
        if found is not None:
            return found.start(), found.end()
    cut = fits
    while cut > 1 and (text[cut] in "\u200d\ufe0f" or text[cut - 1] == "\u200d" or "\u0300" <= text[cut] <= "\u036f"):
        cut -= 1
    return cut, cut
