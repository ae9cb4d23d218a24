"""Exporting: all there is of one session, as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from inturn.audit import exporting
from inturn.errors import StoreError, StoreUnavailableError
from inturn.people import messages_of
from inturn.persistence import MessageQuery
from inturn.persistence.adapter import MAX_PAGE

from ..problems import not_found
from ..runtime import Runtime


def export_session(web: Runtime, session_id: str) -> Iterator[bytes]:
    """Yield a session as the export of its user has it: `type` says what each line is.

    First the `session`, then its `message`s in order, the `turn`s that wait, the `dead_letter`s, and `end`:
    what breaks off before that is not whole. What cannot be read does not end it: a line `unreadable` says
    why. The audit log has it as an export. Raises `Refusal` with 404.
    """
    with web.store.use() as adapter:
        items = list(web.mailbox.items(session_id))
        try:
            with exporting():
                found = adapter.load(session_id)
            if found is None and not items:
                raise not_found("session")
            if found is not None:
                yield _line("session", session=found.session.model_dump(mode="json", exclude={"history"}))
                for message in messages_of(adapter, MessageQuery(session_id=session_id, limit=MAX_PAGE)):
                    yield _line("message", message=message.model_dump(mode="json"))
        except StoreUnavailableError:
            raise
        except StoreError as error:
            yield _line("unreadable", session_id=session_id, reason=str(error))
    for item in items:
        yield _line("turn", session_id=session_id, turn_id=item.turn_id, payload=_payload(item.payload))
    for letter in web.client.dead.find(session_id):
        payload = _payload(web.client.dead.payload(letter) or "")
        yield _line("dead_letter", **letter.model_dump(mode="json"), payload=payload)
    yield _line("end")


def _line(kind: str, **facts: Any) -> bytes:
    return json.dumps({"type": kind, **facts}).encode() + b"\n"


def _payload(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
