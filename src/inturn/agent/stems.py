"""Stems: what two texts have in common, by the stems of their words."""

from __future__ import annotations

import re

_SMALL = re.compile(
    "a|an|and|are|at|be|can|could|do|for|have|hi|how|i|in|is|it|me|my|of|on|or|please|the|to|we|with|you|your"
)
_UNTELLING = frozenset(
    "about after again all already also another any anything as ask asks asked but by caller client customer "  # noqa: SIM905
    "d did didn does doesn don done from get gets give gives had has he her here his if isn just know like "
    "likes ll m may more must need needs never no not now one only other our out person re s said say says "
    "she should so some somebody someone something still such t take tell tells than thanks that their them "
    "then there these they thing this those too up us use user users uses ve wait want wanted wants was were "
    "what when where which while who whose why will wish wishes without won would yes yet".split()
)
_NOT = re.compile(r"(?:\b(?:no|not|never|without|nor)|n['’]t)\b(?:\s+\w+){0,3}\s*$", re.I)
_CLAUSE = re.compile(r"[.,;:!?\n]")
_BEFORE = 60  # characters in which a word's denial is looked for: the whole text would take its square


def stems(text: str) -> set[str]:
    """The stems of the words, without the smallest ones."""
    words = [word for word in re.findall(r"\w+", text.lower()) if not _SMALL.fullmatch(word)]
    return {_stem(word) for word in words}


def telling(text: str) -> set[str]:
    """The stems of the words that say what a text is about."""
    return set(_claims(text))


def agrees(message: str, statement: str) -> bool | None:
    """Whether a message says what a statement does, by the telling words they share; None: they share none.

    They differ where one of the two denies the word ("no refund, please") and the other does not.
    """
    said, stated = _claims(message), _claims(statement)
    shared = said.keys() & stated.keys()
    return any(said[stem] == stated[stem] for stem in shared) if shared else None


def _claims(text: str) -> dict[str, bool]:
    """The telling stems, and whether they are affirmed at least once."""
    claims: dict[str, bool] = {}
    for match in re.finditer(r"[^\W_]+", text):
        word = match[0].lower()
        if word not in _UNTELLING and not _SMALL.fullmatch(word):
            clause = _CLAUSE.split(text[max(0, match.start() - _BEFORE) : match.start()])[-1]
            claims[_stem(word)] = claims.get(_stem(word), False) or not _NOT.search(clause)
    return claims


def _stem(word: str) -> str:
    return re.sub(r"(?:ations?|ings?|ed|es|s|e)$", "", word) if len(word) > 3 else word
