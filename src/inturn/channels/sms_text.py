"""Text: how much a text is as an SMS.

An SMS carries 140 bytes. A text that is all GSM-7 takes 7 bits a character, or 14 for those of its extension
table; one character outside GSM-7 (an emoji, most letters that are not Latin) makes the whole text UCS-2,
which takes 16 bits a character, or 32 for an emoji. Of a text that needs several SMS, each loses room to a
header.
"""

from __future__ import annotations

import re

_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = "\f^{}\\[~]|€"

_GSM_7 = re.compile(f"[{re.escape(_BASIC + _EXTENSION)}]*")
_TWICE_IN_GSM_7 = re.compile(f"[{re.escape(_EXTENSION)}]")
_TWICE_IN_UCS_2 = re.compile("[\U00010000-\U0010ffff]")


def is_gsm_7(text: str) -> bool:
    """Whether every character is one of GSM-7, its extension table included."""
    return _GSM_7.fullmatch(text) is not None


def count_characters(text: str) -> int:
    """The characters of a text as a platform may count them at worst.

    Those of GSM-7's extension table, and those that are two units of UTF-16, count as two in either encoding.
    """
    return len(text) + len(_TWICE_IN_GSM_7.findall(text)) + len(_TWICE_IN_UCS_2.findall(text))


def count_segments(text: str) -> int:
    """The SMS that a text becomes, each of which is charged; 0 for an empty one.

    One holds 160 units of GSM-7 or 70 of UCS-2, each of several 153 or 67, and no character lies in two.
    """
    alone, each, twice = (160, 153, _TWICE_IN_GSM_7) if is_gsm_7(text) else (70, 67, _TWICE_IN_UCS_2)
    starts = [found.start() for found in twice.finditer(text)]
    units = len(text) + len(starts)
    if units <= alone:
        return min(units, 1)
    # A character of two units that would begin with the last unit of a segment goes into the next.
    gaps = 0
    for before, start in enumerate(starts):
        gaps += (start + before + gaps) % each == each - 1
    return -(-(units + gaps) // each)
