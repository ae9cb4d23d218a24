"""Dead turns: the turns that failed, as people handle them: look, run again, drop."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from inturn.contract import DeadLetter, RespondPayload, decode_payload
from inturn.errors import InturnError, InvalidInputError, MailboxFullError, OverloadedError
from inturn.ids import create_turn_id, session_of_turn
from inturn.settings import Settings
from inturn.turns.dead_letters import DeadLetters
from inturn.turns.overlap import ENQUEUE, Overlap, overlap_of

if TYPE_CHECKING:
    from inturn.client import TurnHandle

_TOGETHER_SECONDS = 2.0
"""How long the messages of a merged turn wait for each other when they are run again."""


class Retried(NamedTuple):
    """What became of one of many: it has a new turn, or stays where it is, for that error."""

    letter: DeadLetter
    turn: TurnHandle | None
    error: InturnError | None = None


class DeadTurns:
    """The dead letters of all sessions: `Client.dead`.

    Raises `MailboxUnavailableError` where Redis cannot be reached, `MailboxError` where it refuses.
    """

    def __init__(
        self, letters: DeadLetters, settings: Settings, offer: Callable[[str, str, str, Overlap], TurnHandle]
    ) -> None:
        self._letters = letters
        self._settings = settings
        self._offer = offer

    def find(
        self,
        session_id: str | None = None,
        *,
        error: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[DeadLetter]:
        """List the turns that failed, oldest first.

        All of them, or those of a session, with an error of this class (its name, as in `error.type`), that
        failed at `since` or later and before `until`.
        """
        found = [
            letter
            for letter in self._letters.letters(session_id)
            if error in (None, letter.error.type)
            and (since is None or letter.failed_at >= since)
            and (until is None or letter.failed_at < until)
        ]
        return sorted(found, key=lambda letter: letter.failed_at)

    def get(self, turn_id: str, session_id: str | None = None) -> DeadLetter | None:
        """The letter of a turn; None: there is none.

        Most IDs name their session. One that does not, such as the UUID of a bare `send_task`, is looked for
        in all of them unless its session is given.
        """
        if session_id is not None:
            found = self._letters.get(session_id, turn_id)
            return found or self._letters.get(session_id, create_turn_id(session_id, turn_id))
        try:
            return self._letters.get(session_of_turn(turn_id), turn_id)
        except InvalidInputError:
            return next((letter for letter in self._letters.letters() if letter.turn_id == turn_id), None)

    def payload(self, letter: DeadLetter) -> str | None:
        """What was offered, with all that the user said: JSON, if anybody can read it; None: it is gone."""
        return self._letters.payload(letter.session_id, letter.turn_id)

    def retry(self, letter: DeadLetter) -> TurnHandle | None:
        """Run a turn again: as a new one, behind those of its session that wait; None: the letter is gone.

        The new turn's ID is the old one with `~2` behind it, then `~3` and so on, so a repeated call adds
        nothing. The letter goes once the new turn is accepted. Messages that were merged into one turn are
        merged again if they are run again together.

        Raises `MailboxFullError`, `OverloadedError` or `MailboxUnavailableError` (with
        `INTURN_INBOX=database` for the database `StoreUnavailableError`): the letter stays.
        """
        payload = self.payload(letter)
        if payload is None:
            return None
        turn_id = retry_id(letter.session_id, letter.turn_id)
        turn = self._offer(letter.session_id, turn_id, payload, self._overlap(letter, payload))
        self.drop(letter)
        return turn

    def retry_all(self, letters: Iterable[DeadLetter]) -> Iterator[Retried]:
        """Run many turns again, and tell of each; those of a session keep their order.

        May be left and begun again at any point. Where a session has too many waiting turns, the rest of its
        letters stay; where there are too many in all, all the rest do. Raises what `retry` else raises.
        """
        full: dict[str, InturnError] = {}
        overloaded: InturnError | None = None
        for letter in letters:
            error = overloaded or full.get(letter.session_id)
            if error is None:
                try:
                    turn = self.retry(letter)
                    if turn is not None:  # else somebody else was faster
                        yield Retried(letter, turn)
                    continue
                except MailboxFullError as refused:
                    full[letter.session_id] = error = refused
                except OverloadedError as refused:
                    overloaded = error = refused
            yield Retried(letter, None, error)

    def drop(self, letter: DeadLetter) -> bool:
        """Forget a letter; False: it was gone. What the session's history says of the turn stays."""
        return self._letters.remove(letter.session_id, letter.turn_id)

    def remove_session(self, session_id: str) -> int:
        """Forget all letters of a session that is erased; returns how many there were."""
        return self._letters.remove_session(session_id)

    def _overlap(self, letter: DeadLetter, payload: str) -> Overlap:
        if letter.merged_into is None:
            return ENQUEUE
        try:
            decoded = decode_payload(payload)
        except InturnError:
            return ENQUEUE
        if not isinstance(decoded, RespondPayload):
            return ENQUEUE
        plan = overlap_of(self._settings, decoded, payload, policy="merge", quiet=_TOGETHER_SECONDS)
        # A group of their own: what the user has said since is not what they belong to.
        group = hashlib.sha256(letter.merged_into.encode()).hexdigest()[:16]
        return replace(plan, group=group)


def retry_id(session_id: str, turn_id: str) -> str:
    """The ID under which a turn is run again: the same however often one asks."""
    tried = re.fullmatch(r"(.+)~([2-9]|[1-9]\d{1,5})", turn_id, re.S | re.A)
    stem, number = (tried[1], int(tried[2]) + 1) if tried else (turn_id, 2)
    try:
        return create_turn_id(session_id, f"{stem}~{number}")
    except InvalidInputError:
        # It is too long for an ID, or was none to begin with, which may be why it failed.
        digest = hashlib.sha256(stem.encode(errors="surrogatepass")).hexdigest()[:32]
        return create_turn_id(session_id, f"{digest}~{number}")
