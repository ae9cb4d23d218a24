"""`inturn sessions export`: all there is of some sessions, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inturn.audit import exporting
from inturn.cli.exits import DONE
from inturn.cli.lines import report_lines, write_lines
from inturn.cli.local import local_settings
from inturn.cli.sessions import unknown
from inturn.ids import check_id
from inturn.people import messages_of
from inturn.persistence import MessageQuery, PersistenceAdapter
from inturn.persistence.adapter import MAX_PAGE
from inturn.persistence.opening import open_store
from inturn.session.state import utcnow
from inturn.turns import DeadLetters, Mailbox
from inturn.turns.connection import connect

if TYPE_CHECKING:
    from redis import Redis

    from inturn.settings import Settings


def run_export(session_ids: Sequence[str], output: Path | None, *, as_json: bool) -> int:
    """Write them. Returns the exit code; where one is missing nothing is written."""
    settings = local_settings()
    with open_store(settings) as store, connect(settings) as redis:
        mailbox = Mailbox(redis, settings)
        for session_id in dict.fromkeys(map(check_id, session_ids)):
            if not mailbox.queue(session_id) and store.load(session_id) is None:
                return unknown(session_id)
        lines = export_sessions(settings, store, redis, list(dict.fromkeys(session_ids)))
        counts = write_lines(lines, output)
    report_lines(counts, output, as_json=as_json, session_ids=list(dict.fromkeys(session_ids)))
    return DONE


def export_sessions(
    settings: Settings, store: PersistenceAdapter, redis: Redis, session_ids: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield all there is of sessions, in the objects of `export_user`; `type` says what each is.

    Of each the `session`, its `message`s in order, the `turn`s of it that wait, and the `dead_letter`s. The
    last one is `end`. The audit log has it as an export.
    """
    mailbox, letters = Mailbox(redis, settings), DeadLetters(redis, settings)
    for session_id in session_ids:
        with exporting():
            loaded = store.load(session_id)
        if loaded is not None:
            state = loaded.session.model_dump(mode="json", exclude={"history"})
            yield {"type": "session", "session": state}
            for message in messages_of(store, MessageQuery(session_id=session_id, limit=MAX_PAGE)):
                yield {"type": "message", "message": message.model_dump(mode="json")}
        for item in mailbox.items(session_id):
            names = {"session_id": session_id, "turn_id": item.turn_id}
            yield {"type": "turn", **names, "payload": _readable(item.payload)}
        for letter in letters.letters(session_id):
            payload = letters.payload(letter.session_id, letter.turn_id)
            facts = letter.model_dump(mode="json")
            yield {"type": "dead_letter", **facts, "payload": _readable(payload or "")}
    yield {"type": "end", "exported_at": utcnow().isoformat()}


def _readable(payload: str) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload
