"""Rotation: everything in a store sealed anew with the newest key, and which keys are in use."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

import structlog

from inturn.errors import ConfigurationError, EncryptionKeyError, StoreError, StoreUnavailableError
from inturn.keyring import KeyRing
from inturn.persistence import sealing
from inturn.persistence.adapter import MessageQuery, PersistenceAdapter, SessionQuery
from inturn.session.state import Message, SessionState, TurnRecord, UnreadableSession

Kind = Literal["sessions", "messages", "turns"]
Watch = Callable[[int], None]
"""Called after each session with how many were looked at."""
Tell = Callable[[str, StoreError], None]
"""Called with the ID of a session, and why something in it cannot be read."""
T = TypeVar("T", SessionState, Message, TurnRecord)

_SESSIONS = 20
_ROWS = 200
_TRIES = 5
_log = structlog.get_logger(__name__)


def _warn(session_id: str, error: StoreError) -> None:
    _log.warning("not sealed anew", session_id=session_id, error=str(error))


class Rotated(NamedTuple):
    """What one call of `rotate` did.

    `sessions` were looked at, `rewritten` rows sealed anew. In `unreadable` sessions something could not be
    read. Unless it is `finished`, the next call goes on at `cursor`.
    """

    sessions: int
    rewritten: int
    unreadable: int
    finished: bool = True
    cursor: str | None = None


@dataclass(frozen=True)
class KeyUse:
    """How many rows each key has sealed, by its ID and the kind of the row; the ID None: not sealed.

    `unreadable` are the IDs of sessions that are damaged, in which nobody can tell.
    """

    counts: dict[str | None, Counter[Kind]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def of(self, key_id: str | None) -> int:
        """How many rows in all a key has sealed."""
        return self.counts.get(key_id, Counter()).total()

    def add(self, key_id: str | None, kind: Kind) -> None:
        """Count one row."""
        self.counts.setdefault(key_id, Counter())[kind] += 1


def rotate(
    store: PersistenceAdapter,
    keys: KeyRing,
    *,
    cursor: str | None = None,
    seconds: float | None = None,
    watch: Watch | None = None,
    tell: Tell = _warn,
) -> Rotated:
    """Seal with the first key whatever another one, or none, has sealed: sessions, messages and turns.

    `store` is the adapter within an `EncryptedAdapter`. Ends after `seconds`, or a few sessions later, to go
    on at `cursor`. It may be repeated, raced and stopped at any moment, and turns may run meanwhile: versions
    and times stay, so they meet no conflict. What a turn writes it seals with the first key of its own
    process: only where every process has the newest key in the first place is all sealed with it in the end.

    `tell` is called once for each session in which something cannot be read; that stays as it is.

    Raises `ConfigurationError` without keys, and for a store that cannot rewrite (`supports_rewriting`).
    """
    if not keys:
        raise ConfigurationError(
            "there are no keys to encrypt with: set INTURN_ENCRYPTION_KEYS; `inturn keys new` prints a key"
        )
    if not store.supports_rewriting:
        raise ConfigurationError(
            f"{type(store).__name__} cannot change in place what it keeps: sessions get the newest key with "
            "their next turn, messages keep theirs. Keep every key as long as `inturn keys status` counts "
            "rows that it has sealed"
        )
    deadline = None if seconds is None else time.monotonic() + seconds
    looked_at = rewritten = unreadable = 0
    while True:
        page = store.find_sessions(
            SessionQuery(order="oldest", cursor=cursor, limit=_SESSIONS, unreadable=True)
        )
        for session in page.items:
            work = _Work(store, keys, session.id, tell)
            try:
                work.run(session)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                work.fail(error)  # a row in it is damaged
            looked_at += 1
            rewritten += work.rewritten
            unreadable += work.failed
            if watch is not None:
                watch(looked_at)
        cursor = page.cursor
        finished = cursor is None
        if finished or (deadline is not None and time.monotonic() > deadline):
            return Rotated(looked_at, rewritten, unreadable, finished, cursor)


def count_keys(store: PersistenceAdapter, *, watch: Watch | None = None) -> KeyUse:
    """Count how many rows each key has sealed. `store` is the adapter within an `EncryptedAdapter`.

    It reads all that is stored, and needs no key. Of a store that cannot rewrite, turns are not counted.
    """
    use = KeyUse()
    for looked_at, session in enumerate(_sessions(store), 1):
        try:
            if isinstance(session, UnreadableSession):
                raise StoreError(session.reason)
            _count(use, [session], "sessions")
            for messages in _messages(store, session.id):
                _count(use, messages, "messages")
            for turns in _turns(store, session.id):
                _count(use, turns, "turns")
        except StoreUnavailableError:
            raise
        except StoreError:
            use.unreadable.append(session.id)
        if watch is not None:
            watch(looked_at)
    return use


class _Work:
    """The rotation of one session."""

    def __init__(self, store: PersistenceAdapter, keys: KeyRing, session_id: str, tell: Tell) -> None:
        self._store = store
        self._keys = keys
        self._session_id = session_id
        self._tell = tell
        self.rewritten = 0
        self.failed = False

    def run(self, session: SessionState) -> None:
        """Do it; stopped at any moment, it can be done again."""
        for messages in _messages(self._store, self._session_id):
            changed = self._sealed_anew(messages, sealing.open_message, sealing.seal_message)
            self.rewritten += self._store.rewrite(messages=changed) if changed else 0
        for turns in _turns(self._store, self._session_id):
            anew = self._sealed_anew(turns, sealing.open_turn, sealing.seal_turn)
            self.rewritten += self._store.rewrite(turns=anew) if anew else 0
        if isinstance(session, UnreadableSession):
            raise StoreError(session.reason)
        self._rotate_state(session)

    def fail(self, error: StoreError) -> None:
        """Note that something in the session cannot be read."""
        if not self.failed:
            self._tell(self._session_id, error)
        self.failed = True

    def _rotate_state(self, session: SessionState) -> None:
        for _ in range(_TRIES):
            anew = self._sealed_anew([session], sealing.open_session, sealing.seal_session)
            if not anew:
                return
            if self._store.rewrite(session=anew[0]):
                self.rewritten += 1
                return
            # A turn was committed meanwhile, as a rule sealed with the newest key; it may also be gone.
            found = self._store.load(self._session_id)
            if found is None:
                return
            session = found.session

    def _sealed_anew(
        self, stored: Sequence[T], open_: Callable[[KeyRing, T], T], seal: Callable[[KeyRing, T], T]
    ) -> list[T]:
        newest = self._keys.ids[0]
        changed = []
        for each in stored:
            try:
                if sealing.key_id_in(each) != newest:
                    changed.append(seal(self._keys, open_(self._keys, each)))
            except EncryptionKeyError as error:
                self.fail(error)
        return changed


def _count(use: KeyUse, stored: Sequence[SessionState | Message | TurnRecord], kind: Kind) -> None:
    for each in stored:
        try:
            use.add(sealing.key_id_in(each), kind)
        except EncryptionKeyError:
            use.add("of a later release", kind)


def _sessions(store: PersistenceAdapter) -> Iterator[SessionState]:
    cursor = None
    while True:
        page = store.find_sessions(
            SessionQuery(order="oldest", cursor=cursor, limit=_SESSIONS, unreadable=True)
        )
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return


def _messages(store: PersistenceAdapter, session_id: str) -> Iterator[list[Message]]:
    cursor = None
    while True:
        page = store.find_messages(MessageQuery(session_id=session_id, cursor=cursor, limit=_ROWS))
        yield page.items
        cursor = page.cursor
        if cursor is None:
            return


def _turns(store: PersistenceAdapter, session_id: str) -> Iterator[list[TurnRecord]]:
    cursor = None
    while store.supports_rewriting:
        page = store.find_turns(session_id, cursor=cursor, limit=_ROWS)
        yield page.items
        cursor = page.cursor
        if cursor is None:
            return
