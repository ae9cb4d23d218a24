"""Acceptor: takes turns in, by way of the mailbox alone or of the database's inbox first."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Literal

from inturn.envelopes import Envelopes
from inturn.errors import MailboxUnavailableError
from inturn.settings import Settings
from inturn.turns.mailbox import Mailbox, Offered
from inturn.turns.overlap import ENQUEUE, Overlap

if TYPE_CHECKING:
    from inturn.persistence.inbox import Inbox


class Acceptor:
    """What a producer asks of the turns that wait: to take one in, to drop one, where one stands.

    With an inbox (`INTURN_INBOX=database`) a turn is accepted once it is there: Redis may be away, or lose
    all it has. Raises `MailboxUnavailableError`, and with an inbox `StoreUnavailableError`.
    """

    def __init__(self, mailbox: Mailbox, settings: Settings) -> None:
        self._mailbox = mailbox
        self._most = settings.max_waiting
        self._inbox = open_inbox(settings)

    def offer(self, session_id: str, turn_id: str, payload: str, overlap: Overlap = ENQUEUE) -> Offered:
        """Take a turn in, unless its ID is known, or the limits or its policy have it refused.

        While Redis is away an inbox takes any policy for `enqueue`, and the limit alone can refuse.
        """
        inbox = self._inbox
        if inbox is None:
            return self._mailbox.offer(session_id, turn_id, payload, overlap)
        is_new = inbox.put(session_id, turn_id, payload, astuple(overlap))
        try:
            offered = self._mailbox.offer(session_id, turn_id, payload, overlap)
        except MailboxUnavailableError:
            # A worker puts it into the mailbox when Redis is back.
            waiting = inbox.count(session_id)
            offered = Offered("new", max(0, waiting - 1), publish=False)
            if waiting > self._most:
                offered = Offered("full", waiting - 1, publish=False)
        if offered.outcome in ("new", "known"):
            # Of a new turn the mailbox may know already: a worker has brought it there.
            return offered._replace(outcome="new" if is_new else "known")
        if is_new:
            inbox.remove(session_id, [turn_id])
        return offered

    def cancel(self, session_id: str, turn_id: str) -> Literal["dropped", "signalled", "unknown"]:
        """Drop a waiting turn, or signal a running one; as `Mailbox.cancel`."""
        outcome = self._mailbox.cancel(session_id, turn_id)
        inbox = self._inbox
        if inbox is None or outcome == "signalled":
            return outcome
        if outcome == "unknown" and self._mailbox.look(session_id, turn_id).state == "done":
            return outcome
        # In the mailbox it is not, or not any more; out of the inbox it never comes there again.
        if inbox.remove(session_id, [turn_id]) and outcome == "unknown":
            # But perhaps it did so in this moment.
            again = self._mailbox.cancel(session_id, turn_id)
            return "dropped" if again == "unknown" else again
        return outcome

    def state(self, session_id: str, turn_id: str) -> Literal["running", "waiting", "done", "unknown"]:
        """Where a turn stands, as far as the mailbox knows, or the inbox."""
        state = self._mailbox.look(session_id, turn_id).state
        if state == "unknown" and self._inbox is not None and self._inbox.has(session_id, turn_id):
            return "waiting"
        return state

    @property
    def is_durable(self) -> bool:
        """Whether what is taken in outlives a loss of Redis."""
        return self._inbox is not None

    def close(self) -> None:
        """Close the inbox."""
        if self._inbox is not None:
            self._inbox.close()


def open_inbox(settings: Settings) -> Inbox | None:
    """The inbox that the settings ask for; None: turns wait in Redis alone.

    Raises `ConfigurationError` for a database that has no tables, or that is only this process's.
    """
    if settings.inbox == "redis":
        return None
    from inturn.persistence.inbox import Inbox  # and with it SQLAlchemy, which others do not need

    url = (settings.inbox_url or settings.database_url).get_secret_value()
    return Inbox(url, pool_size=settings.database_pool, envelopes=Envelopes.of(settings))
