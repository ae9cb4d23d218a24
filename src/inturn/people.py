"""People: all there is of one user, to be handed to them: `export_user`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from inturn.accepting import open_inbox
from inturn.audit import exporting
from inturn.contract import decode_payload
from inturn.errors import InturnError, StoreError, StoreUnavailableError
from inturn.ids import check_id
from inturn.persistence.adapter import MAX_PAGE, MessageQuery, PersistenceAdapter, SessionQuery
from inturn.persistence.archiving import ArchivingAdapter
from inturn.persistence.encrypted import EncryptedAdapter
from inturn.persistence.opening import layer_of
from inturn.session.state import Message, SessionState, UnreadableSession, utcnow
from inturn.settings import Settings
from inturn.turns.dead_letters import DeadLetters
from inturn.turns.mailbox import Mailbox

if TYPE_CHECKING:
    from redis import Redis

    from inturn.persistence.inbox import Inbox


def export_user(
    settings: Settings, store: PersistenceAdapter, redis: Redis, user_id: str
) -> Iterator[dict[str, Any]]:
    """Yield all there is of a user, as JSON objects; `type` says what each is.

    First `user`, with the time; then each `session` of theirs, followed by its `message`s in order; the
    `message`s that they have written in sessions of others; the `turn`s of theirs that wait; and the
    `dead_letter`s, which are turns that failed. With an `ArchivingAdapter` also what only the archive has
    (`archived`). What cannot be read, for a key is missing or a row is damaged, does not end the export: a
    line `unreadable` says in which session (null: some message in a session of others), and why. Nothing is
    held in memory but a page.

    The audit log has it as an export. Raises `InvalidInputError`, and what store and Redis raise.
    """
    check_id(user_id, "user ID")
    yield {"type": "user", "user_id": user_id, "exported_at": utcnow().isoformat()}
    mine: set[str] = set()
    archive = archive_of(store)
    for adapter, archived in ((store, False), *([(archive, True)] if archive is not None else [])):
        for session in sessions_of(adapter, user_id):
            if session.id in mine:
                continue
            mine.add(session.id)
            if isinstance(session, UnreadableSession):
                yield _unreadable(session.id, session.reason)
                continue
            state = session.model_dump(mode="json", exclude={"history"})
            yield {"type": "session", "archived": archived, "session": state}
            of_session = MessageQuery(session_id=session.id, limit=MAX_PAGE)
            yield from _lines(adapter, of_session, (), archived, session.id)
        as_guest = MessageQuery(user_id=user_id, limit=MAX_PAGE)
        yield from _lines(adapter, as_guest, mine, archived, None)
    inbox = open_inbox(settings)
    try:
        for session_id, turn_id, payload in waiting_turns(Mailbox(redis, settings), inbox):
            if session_id in mine or user_of(payload) == user_id:
                yield {"type": "turn", "session_id": session_id, "turn_id": turn_id, **_payload(payload)}
    finally:
        if inbox is not None:
            inbox.close()
    letters = DeadLetters(redis, settings)
    for letter in letters.letters():
        if letter.session_id in mine or letter.user_id == user_id:
            text = letters.payload(letter.session_id, letter.turn_id)
            yield {"type": "dead_letter", **letter.model_dump(mode="json"), **_payload(text or "")}


def sessions_of(adapter: PersistenceAdapter, user_id: str) -> Iterator[SessionState]:
    """The sessions that a user has begun, page by page, by the time of their last change.

    Of one that cannot be read it gives an `UnreadableSession`.
    """
    cursor: str | None = None
    while True:
        query = SessionQuery(user_id=user_id, order="oldest", cursor=cursor, limit=200, unreadable=True)
        with exporting():
            page = adapter.find_sessions(query)
        yield from page.items
        if (cursor := page.cursor) is None:
            return


def messages_of(adapter: PersistenceAdapter, query: MessageQuery) -> Iterator[Message]:
    """All messages that a query finds, page by page."""
    while True:
        # Around each read and no more: who iterates may do so in another context each time.
        with exporting():
            page = adapter.find_messages(query)
        yield from page.items
        if page.cursor is None:
            return
        query = MessageQuery(
            session_id=query.session_id, user_id=query.user_id, cursor=page.cursor, limit=query.limit
        )


def waiting_turns(mailbox: Mailbox, inbox: Inbox | None) -> Iterator[tuple[str, str, str]]:
    """All turns that wait or run, as (session ID, turn ID, payload), each once."""
    seen: set[tuple[str, str]] = set()
    for item in mailbox.items():
        if inbox is not None:
            seen.add((item.session_id, item.turn_id))
        yield item.session_id, item.turn_id, item.payload
    if inbox is None:
        return
    newest, after = inbox.newest(), ""
    while newest and (sessions := inbox.sessions(newest, after=after)):
        after = sessions[-1]
        for session_id in sessions:
            for turn in inbox.turns(session_id):
                if (session_id, turn.turn_id) not in seen:
                    yield session_id, turn.turn_id, turn.payload


def user_of(payload: str) -> str | None:
    """Whose turn a payload is; None: nobody's, or nobody can read it."""
    try:
        return decode_payload(payload).user_id
    except InturnError:
        return None


def archive_of(store: PersistenceAdapter) -> PersistenceAdapter | None:
    """The archive of a store with an `ArchivingAdapter` in it, as it can be read."""
    archiving = layer_of(store, ArchivingAdapter)
    if archiving is None:
        return None
    encrypted = layer_of(store, EncryptedAdapter)
    return archiving.archive if encrypted is None else EncryptedAdapter(archiving.archive, encrypted.keys)


def _lines(
    adapter: PersistenceAdapter,
    query: MessageQuery,
    besides: Collection[str],
    archived: bool,
    session_id: str | None,
) -> Iterator[dict[str, Any]]:
    """The messages that a query finds, but for those of some sessions; and the end, if one cannot be read."""
    try:
        for message in messages_of(adapter, query):
            if message.session_id not in besides:
                yield _line(message, archived)
    except StoreUnavailableError:
        raise
    except StoreError as error:
        yield _unreadable(session_id, str(error))


def _unreadable(session_id: str | None, reason: str) -> dict[str, Any]:
    return {"type": "unreadable", "session_id": session_id, "reason": reason}


def _line(message: Message, archived: bool) -> dict[str, Any]:
    return {"type": "message", "archived": archived, "message": message.model_dump(mode="json")}


def _payload(text: str) -> dict[str, Any]:
    try:
        return {"payload": json.loads(text)}
    except ValueError:
        return {"payload": text}
