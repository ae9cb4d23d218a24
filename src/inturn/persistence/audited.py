"""AuditedAdapter: every read and every change of a store is in the audit log before anybody has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inturn.audit import kind_of_read
from inturn.audit.log import AuditLog
from inturn.ids import check_id
from inturn.persistence import rows
from inturn.persistence.adapter import (
    Committed,
    Loaded,
    MessageQuery,
    Page,
    PersistenceAdapter,
    Recorded,
    SessionQuery,
    Target,
)
from inturn.persistence.wrapping import WrappingAdapter
from inturn.session.state import Message, SessionState, TurnRecord


class AuditedAdapter(WrappingAdapter):
    """`inner` does everything; `log` has who asked for it, and of which session, user and turn.

    Recorded is never what was said or collected. What cannot be recorded does not happen
    (`AuditUnavailableError`): what was read is not handed out, and nothing is written.

    - A read is recorded when it is done, with the sessions that were found.
    - A change is recorded before it is tried, with the version it is to follow. If nothing came of it, that
      is a second record, `outcome` being the error's class, or `repeated` for a turn that was there already.
      Without one it has happened, unless the process ended in that moment.
    - A deletion is recorded before it is tried, and again with the sessions that are gone by it.

    Both `inner` and `log` are closed with this adapter, which owns them.
    """

    def __init__(self, inner: PersistenceAdapter, log: AuditLog) -> None:
        super().__init__(inner)
        self.log = log

    def initialize(self) -> None:
        """See `PersistenceAdapter.initialize`."""
        self.log.open()
        super().initialize()

    def close(self) -> None:
        """See `PersistenceAdapter.close`."""
        super().close()
        self.log.close()

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """See `PersistenceAdapter.load`."""
        found = self.inner.load(session_id, last_messages=last_messages, turn_id=turn_id)
        self.log.append(
            kind_of_read(),
            session_ids=[session_id],
            user_id=None if found is None else found.session.user_id,
            turn_id=turn_id,
            call="load",
            messages=0 if found is None else len(found.messages),
            outcome=None if found is not None else "none",
        )
        return found

    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        """See `PersistenceAdapter.commit`."""
        check_id(session.id)
        if session.user_id is not None:
            check_id(session.user_id, "user ID")
        if turn is not None:
            rows.turn_key(turn.turn_id)

        def note(**facts: Any) -> None:
            self.log.append(
                "change",
                session_ids=[session.id],
                user_id=session.user_id,
                turn_id=None if turn is None else turn.turn_id,
                call="commit",
                version=expected_version,
                **facts,
            )

        note(messages=len(messages))
        try:
            committed = self.inner.commit(session, messages, expected_version=expected_version, turn=turn)
        except Exception as error:
            note(outcome=type(error).__name__)
            raise
        if committed.repeated:
            note(outcome="repeated")
        return committed

    def recorded(self, session_id: str, turn_ids: Sequence[str]) -> Recorded:
        """See `PersistenceAdapter.recorded`."""
        found = self.inner.recorded(session_id, turn_ids)
        self.log.append(kind_of_read(), session_ids=[session_id], call="recorded", turns=len(found.turn_ids))
        return found

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        page = self.inner.find_sessions(query)
        self.log.append(
            kind_of_read(),
            session_ids=[session.id for session in page.items],
            user_id=query.user_id,
            call="find_sessions",
        )
        return page

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`."""
        page = self.inner.find_messages(query)
        found = {message.session_id: None for message in page.items}
        self.log.append(
            kind_of_read(),
            session_ids=list(found) if query.session_id is None else [query.session_id],
            user_id=query.user_id,
            call="find_messages",
            messages=len(page.items),
        )
        return page

    def find_turns(self, session_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[TurnRecord]:
        """See `PersistenceAdapter.find_turns`."""
        page = self.inner.find_turns(session_id, cursor=cursor, limit=limit)
        self.log.append(kind_of_read(), session_ids=[session_id], call="find_turns", turns=len(page.items))
        return page

    def rewrite(
        self,
        session: SessionState | None = None,
        messages: Sequence[Message] = (),
        turns: Sequence[TurnRecord] = (),
    ) -> int:
        """See `PersistenceAdapter.rewrite`."""
        named = [] if session is None else [session.id]
        named += [message.session_id for message in messages]
        named += [turn.session_id for turn in turns]
        session_ids = list(dict.fromkeys(check_id(session_id) for session_id in named))
        self.log.append("change", session_ids=session_ids, call="rewrite")
        return self.inner.rewrite(session, messages, turns)

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`."""
        rows.check_targets(targets)
        session_ids = [target.session_id for target in targets]
        self.log.append("erase", session_ids=session_ids, call="delete_sessions", outcome="asked")
        gone = self.inner.delete_sessions(targets)
        self.log.append("erase", session_ids=gone, call="delete_sessions", outcome=f"{len(gone)} gone")
        return gone
