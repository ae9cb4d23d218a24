"""Sight: what there is of a turn at one moment, for readers that look again and again."""

from __future__ import annotations

from typing import Final, NamedTuple

from inturn.contract import TurnResult
from inturn.turns.mailbox import TurnView
from inturn.turns.streams import Entry

END: Final = f"{2**64 - 1}-{2**64 - 1}"
"""No entry comes after this ID: the `after` of those who do not want the text."""


class Place(NamedTuple):
    """How far a reader of a turn has come: `after` is the ID of the last entry it has of the stream."""

    session_id: str
    turn_id: str
    after: str = "0"


class Sight(NamedTuple):
    """A turn's result if it has ended, the next entries of its stream, and where it stands in the mailbox.

    With a result, `entries` hold all that is left of the stream, unless they are `MOST_READ`.
    """

    result: TurnResult | None
    entries: list[Entry]
    view: TurnView
