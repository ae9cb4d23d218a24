"""EncryptedAdapter: what people said and what was collected is sealed before any store has it."""

from __future__ import annotations

from collections.abc import Sequence

from inturn.errors import StoreError
from inturn.keyring import KeyRing
from inturn.persistence import rows, sealing
from inturn.persistence.adapter import (
    Committed,
    Loaded,
    MessageQuery,
    Page,
    PersistenceAdapter,
    SessionQuery,
)
from inturn.persistence.wrapping import WrappingAdapter
from inturn.session.state import Message, SessionState, TurnRecord, UnreadableSession


class EncryptedAdapter(WrappingAdapter):
    """`inner` keeps everything, and can read of it what has to be found, ordered and counted.

    Sealed are (`inturn.persistence.sealing`)

    - of a session all that was said or collected: `data`, `data_by_route`, `pending`, `journal`, `summary`,
      `outbox` and `metadata`;
    - of a message `content`, `name`, `tool_calls` and `event`;
    - of a turn its result.

    All else stays readable: IDs, also those of users, the agent's name, status, route and step, roles, times,
    sequences, counts and versions. What was written before there were keys is read as it is, and sealed when
    it is next written, or by a rotation. With a ring without keys everything passes as it is.

    What cannot be opened raises `EncryptionKeyError`, and as long as it cannot be read it cannot be written
    over either. It can be deleted: to erase somebody's data must take no key.
    """

    def __init__(self, inner: PersistenceAdapter, keys: KeyRing) -> None:
        # Nobody can search in what they cannot read; and what is rewritten would not be sealed.
        super().__init__(inner, supports_search=inner.supports_search and not keys, supports_rewriting=False)
        self.keys = keys

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """See `PersistenceAdapter.load`."""
        found = self.inner.load(session_id, last_messages=last_messages, turn_id=turn_id)
        if found is None:
            return None
        return Loaded(
            sealing.open_session(self.keys, found.session),
            [sealing.open_message(self.keys, message) for message in found.messages],
            None if found.turn is None else sealing.open_turn(self.keys, found.turn),
        )

    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        """See `PersistenceAdapter.commit`."""
        if not self.keys:
            committed = self.inner.commit(session, messages, expected_version=expected_version, turn=turn)
            return self._opened(committed) if committed.repeated else committed
        # As every store begins: what none could keep is refused here, where it can still be seen.
        saved, numbered = rows.next_commit(session, messages, expected_version, turn)
        committed = self.inner.commit(
            sealing.seal_session(self.keys, saved).model_copy(
                update={"message_count": session.message_count, "updated_at": session.updated_at}
            ),
            [sealing.seal_message(self.keys, message) for message in numbered],
            expected_version=expected_version,
            turn=None if turn is None else sealing.seal_turn(self.keys, turn),
        )
        if committed.repeated:
            return self._opened(committed._replace(session=session))
        return Committed(
            sealing.with_readable_of(saved, committed.session),
            [
                message.model_copy(update={"sequence": stored.sequence})
                for message, stored in zip(numbered, committed.messages, strict=True)
            ],
            turn,
        )

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        page = self.inner.find_sessions(query)
        return Page([self._listed(session, query) for session in page.items], page.cursor)

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`."""
        page = self.inner.find_messages(query)
        return Page([sealing.open_message(self.keys, message) for message in page.items], page.cursor)

    def _listed(self, session: SessionState, query: SessionQuery) -> SessionState:
        try:
            return sealing.open_session(self.keys, session)
        except StoreError as error:
            if not query.unreadable:
                raise
            told = {name: getattr(session, name) for name in sealing.READABLE}
            return UnreadableSession(**told, reason=str(error))

    def _opened(self, committed: Committed) -> Committed:
        turn = committed.turn
        return committed._replace(turn=None if turn is None else sealing.open_turn(self.keys, turn))
