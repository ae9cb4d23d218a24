"""Said: what a user said, of which one turn may take several messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from inturn.agent.rows import turn_row
from inturn.agent.schema import clean
from inturn.errors import InvalidInputError
from inturn.persistence.rows import turn_key
from inturn.session.state import MERGED_INTO, HistoryItem, Message, SessionState
from inturn.values import check_images, to_json, to_text


@dataclass(frozen=True, slots=True)
class Said:
    """A message of the user.

    `turn_id` is its own ID, also where another turn takes it along: it keeps its row in the history, and is
    answered under this ID ever after. None: the only message of a turn, which makes an ID.
    """

    message: str
    turn_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    images: Sequence[str] = ()

    @property
    def event(self) -> dict[str, Any]:
        """What is kept with the message."""
        event: dict[str, Any] = {}
        if self.metadata:
            event["metadata"] = dict(self.metadata)
        if self.images:
            event["images"] = list(self.images)
        return event


def checked(said: Sequence[Said]) -> list[Said]:
    """Messages that one turn can take and keep; `InvalidInputError` for any other."""
    for each in said:
        if not isinstance(each.message, str):
            raise InvalidInputError(f"a message must be a string, not {type(each.message).__name__}")
        to_text(each.message, "message")
        if len(said) > 1:
            turn_key(each.turn_id or "")
    if len({each.turn_id for each in said}) < len(said):
        raise InvalidInputError("each message of a turn must have a turn ID of its own")
    shown = [replace(each, images=check_images(each.images)) for each in said]
    for each in shown:
        to_json(each.event, "metadata")
    return shown


def storable(said: Said) -> Said:
    """Of a message that no store can keep, what one can; without its metadata, which may be the reason."""
    return replace(said, message=clean(said.message), metadata=None)


def together(said: Sequence[Said], turn_ids: Sequence[str], at: datetime) -> HistoryItem:
    """The messages of these turns as the model is asked about them: one, line by line."""
    asked = _of(said, turn_ids)
    images = [image for each in asked for image in each.images]
    text = "\n".join(each.message for each in asked)
    return HistoryItem(role="user", content=text, timestamp=at, images=images or None)


def said_rows(
    session: SessionState,
    turn_ids: Sequence[str],
    said: Sequence[Said],
    route: str | None,
    step: str | None,
    at: datetime,
    user_id: str | None,
) -> list[Message]:
    """A row for each message of these turns, under its own ID; the later ones' events name the first.

    They are the words of `user_id`, who in a conversation of several need not be the session's user.
    """
    first = turn_ids[0]
    rows = [
        turn_row(
            session,
            each.turn_id or first,
            HistoryItem(role="user", content=each.message, timestamp=at),
            route,
            step,
            {**each.event, **({MERGED_INTO: first} if number else {})} or None,
        )
        for number, each in enumerate(_of(said, turn_ids))
    ]
    return rows if user_id is None else [row.model_copy(update={"user_id": user_id}) for row in rows]


def _of(said: Sequence[Said], turn_ids: Sequence[str]) -> Sequence[Said]:
    return said if len(said) == 1 else [each for each in said if each.turn_id in turn_ids]
