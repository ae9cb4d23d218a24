"""Payloads from the outside: checked against the limits, so that a bad turn is refused before it waits."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from inturn.contract import Payload, RespondPayload, SaveSessionPayload
from inturn.errors import InvalidInputError
from inturn.ids import check_id
from inturn.session.state import HistoryItem, Status
from inturn.settings import Settings
from inturn.values import check_images, to_json, to_text

MOST_IMAGES = 10
"""Images one message may have."""


def respond_payload(
    settings: Settings,
    session_id: str,
    message: str,
    *,
    user_id: str | None = None,
    bound: bool = False,
    channel: str | None = None,
    address: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    images: Sequence[str] = (),
    stream: bool = False,
) -> RespondPayload:
    """Make the payload of a user's message, or raise `InvalidInputError` that says what is wrong."""
    if address and channel is None:
        raise InvalidInputError("an address is one on a channel; give the channel's name with it")
    return RespondPayload(
        session_id=check_id(session_id),
        user_id=None if user_id is None else check_id(user_id, "user ID"),
        bound=_checked_bound(bound, user_id),
        message=_checked_message(settings, message),
        images=_checked_images(images, settings.max_payload_bytes),
        stream=_checked_flag(stream, "stream"),
        channel=None if channel is None else check_id(channel, "channel"),
        address=_plain(address, "address") or {},
        metadata=_plain(metadata, "metadata") or {},
    )


def save_session_payload(
    settings: Settings,
    session_id: str,
    *,
    data: Mapping[str, Any] | None = None,
    status: Status | None = None,
    metadata: Mapping[str, Any] | None = None,
    messages: Sequence[HistoryItem | Mapping[str, Any]] | None = None,
    user_id: str | None = None,
    bound: bool = False,
) -> SaveSessionPayload:
    """Make the payload of a change from outside, or raise `InvalidInputError` that says what is wrong."""
    if status not in (None, "active", "completed", "abandoned"):
        raise InvalidInputError(f"no such status: {status!r}; use active, completed or abandoned")
    items = None if messages is None else [_history_item(settings, item) for item in messages]
    return SaveSessionPayload(
        session_id=check_id(session_id),
        user_id=None if user_id is None else check_id(user_id, "user ID"),
        bound=_checked_bound(bound, user_id),
        data=_plain(data, "data"),
        status=status,
        metadata=_plain(metadata, "metadata"),
        messages=items,
    )


def encode_payload(settings: Settings, payload: Payload) -> str:
    """Encode a payload for the mailbox; raises `InvalidInputError` if it is too large."""
    text = payload.model_dump_json(exclude_none=True)
    size = len(text.encode())
    if size > settings.max_payload_bytes:
        raise InvalidInputError(
            f"a turn's payload may have {settings.max_payload_bytes} bytes "
            f"(INTURN_MAX_PAYLOAD_BYTES), this one has {size}"
        )
    return text


def _checked_message(settings: Settings, message: object) -> str:
    if not isinstance(message, str):
        raise InvalidInputError(f"a message must be a string, not {type(message).__name__}")
    if not message.strip():
        raise InvalidInputError("a message must not be empty")
    _check_length(message, settings.max_message_chars)
    if settings.normalize != "none":
        message = unicodedata.normalize("NFC" if settings.normalize == "nfc" else "NFKC", message)
        _check_length(message, settings.max_message_chars)  # some characters become many
    return to_text(message, "message")


def _check_length(message: str, most: int) -> None:
    if len(message) > most:
        raise InvalidInputError(
            f"a message may have {most} characters (INTURN_MAX_MESSAGE_CHARS), this one has {len(message)}"
        )


def _checked_images(images: object, most_bytes: int) -> list[str]:
    checked = check_images(images)
    if len(checked) > MOST_IMAGES:
        raise InvalidInputError(f"a message may have {MOST_IMAGES} images, this one has {len(checked)}")
    for number, image in enumerate(checked, 1):
        if len(image) > most_bytes:
            raise InvalidInputError(
                f"a turn's payload may have {most_bytes} bytes (INTURN_MAX_PAYLOAD_BYTES), image {number} "
                f"alone has {len(image)}; give a URL at which it can be fetched"
            )
    return checked


def _checked_flag(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError(f"{field} must be true or false, not {type(value).__name__}")
    return value


def _checked_bound(bound: object, user_id: str | None) -> bool:
    if _checked_flag(bound, "bound") and user_id is None:
        raise InvalidInputError("a turn is bound to a user; give user_id with bound")
    return bound is True


def _history_item(settings: Settings, given: HistoryItem | Mapping[str, Any]) -> HistoryItem:
    try:
        item = HistoryItem.model_validate(given)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, line["loc"])) for line in error.errors())
        raise InvalidInputError(f"a message needs `role` and `content`; wrong: {fields}") from None
    return item.model_copy(update={"content": _checked_message(settings, item.content)})


def _plain(value: Mapping[str, Any] | None, field: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{field} must be a mapping, not {type(value).__name__}")
    plain: dict[str, Any] = json.loads(to_json(dict(value), field))
    return plain
