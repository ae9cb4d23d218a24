"""Splitting: a long text in parts that a channel takes, cut where a reader would pause."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from inturn.errors import InvalidInputError

_PAUSES = (
    re.compile(r"(\n\s*\n\s*)"),
    re.compile(r"(\n\s*)"),
    re.compile(r"[.!?…][\"'”’»)\]]*(\s+)|[。！？][”’』」）]*(\s*)"),
    re.compile(r"[,;:](\s+)|[，；：](\s*)"),
    re.compile(r"(\s+)"),
)
"""From the best place to cut to the worst: paragraphs, lines, sentences, clauses, words. A group is the gap
between the two parts; nothing else may be lost."""

_JOINER = "\u200d"
_MODIFIERS = re.compile("[\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\u200d]")
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]")
_LONGEST_CHARACTER = 32
"""Characters that a reader sees as one may be this many code points; beyond it is no language's text."""


def split_text(text: str, most: int, size: Callable[[str], int] = len) -> list[str]:
    """Split `text` into parts of at most `most` by `size`; nothing but white space at the cuts is lost.

    A part ends with a paragraph, else a line, a sentence, a clause, a word; a word that is itself too long is
    cut between characters, never within a combined one. `size` counts what the channel counts, and never
    shrinks as a text grows. The same text always comes in the same parts; a blank one in none. Raises
    `InvalidInputError` if a single character is more than `most`.
    """
    parts: list[str] = []
    rest = text.strip()
    while rest:
        fits = _longest(rest, most, size)
        if fits == len(rest):
            return [*parts, rest]
        cut, gap = _cut(rest, fits)
        parts.append(rest[:cut].rstrip())
        rest = rest[gap:].lstrip()
    return parts


def _longest(text: str, most: int, size: Callable[[str], int]) -> int:
    """How many characters of `text` fit."""
    low, high = 0, 64
    while high < len(text) and size(text[:high]) <= most:
        low, high = high, 2 * high
    high = min(high, len(text))
    while low < high:
        middle = (low + high + 1) // 2
        if size(text[:middle]) <= most:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        raise InvalidInputError(
            f"a part may have a size of {most}, and one character alone has {size(text[0])}"
        )
    return low


def _cut(text: str, fits: int) -> tuple[int, int]:
    """Where the part ends, and where the rest begins; of `text` the first `fits` characters fit."""
    for pause in _PAUSES:
        found = None
        for match in pause.finditer(text, 0, fits + 1):
            # A cut near the beginning makes many small parts: a worse pause further on is the better cut.
            if fits // 4 < (start := match.start(match.lastindex or 0)) <= fits:
                found = start, match.end()
        if found is not None:
            return found
    cut = fits
    while cut > max(0, fits - _LONGEST_CHARACTER) and _is_within(text, cut):
        cut -= 1
    cut = cut if cut > 0 and not _is_within(text, cut) else fits
    return cut, cut


def _is_within(text: str, at: int) -> bool:
    """Whether a cut at `at` would be within what a reader sees as one character."""
    if at == 0:
        return False
    before, after = text[at - 1], text[at]
    if before == _JOINER or _MODIFIERS.match(after) or unicodedata.category(after).startswith("M"):
        return True
    if _FLAG.match(after) and _FLAG.match(before):
        start = at
        while start > 0 and _FLAG.match(text[start - 1]):
            start -= 1
        return (at - start) % 2 == 1
    return False
