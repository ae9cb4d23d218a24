"""Access: whose a session is, and who may see it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import structlog
from redis import Redis

from inturn.contract import UnknownPayloadError, decode_payload
from inturn.errors import InvalidInputError, StoreUnavailableError
from inturn.session.state import SessionState
from inturn.settings import Settings
from inturn.turns import Mailbox
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys

from .auth import Caller
from .problems import Refusal, not_found
from .store import Store

log = structlog.get_logger(__name__)


class Owner(NamedTuple):
    """Whose a session is; None: nobody's, so no signed-in user may see it."""

    user_id: str | None


class Access:
    """Who may see and touch which session.

    A session is of the user of its first turn. The store says who that is; before the first commit Redis
    does, where whoever begins a session claims its ID. A claim lasts as long as the results of turns do, so
    that nobody else can get an ID under which somebody's replies may still be found.
    """

    def __init__(self, redis: Redis, mailbox: Mailbox, store: Store, settings: Settings) -> None:
        self._redis = redis
        self._keys = Keys(settings.key_prefix)
        self._mailbox = mailbox
        self._store = store
        self._claim_ms = round(max(settings.result_seconds, settings.done_seconds) * 1000)

    def read(self, caller: Caller, session_id: str) -> SessionState | None:
        """Load a session that the caller may see; None: only turns of it wait.

        Raises `Refusal` with 404 where there is none, or none of the caller's.
        """
        # In this order: a turn leaves the mailbox after its session is in the store.
        waits = bool(self._mailbox.waiting([session_id]))
        session = self._load(session_id)
        if session is not None:
            owner: Owner | None = Owner(session.user_id)
        else:
            owner = self._claimed(session_id) or self._waiting(session_id)
        if not _sees(caller, owner):
            raise not_found("session")
        if session is None and not waits:
            raise not_found("session")
        return session

    def is_known(self, session_id: str) -> bool:
        """Whether there is such a session, or a turn of it waits."""
        # In this order: a turn leaves the mailbox after its session is in the store.
        return self._mailbox.head_payload(session_id) is not None or self._load(session_id) is not None

    def check(self, caller: Caller, session_id: str, what: str) -> None:
        """Return if the caller may see what belongs to the session, else raise `Refusal` with 404."""
        if not caller.is_trusted and not _sees(caller, self._owner(session_id)):
            raise not_found(what)

    def enter(self, caller: Caller, session_id: str, user_id: str | None) -> str | None:
        """Tell whose turn it is that the caller wants to enqueue, and claim the session if it is new.

        A signed-in user may begin no session with a colon in its ID: those are the channels', whose IDs can
        be guessed.
        """
        if caller.is_trusted:
            if user_id is not None:
                self._enter_for(session_id, user_id)
            return user_id
        if user_id not in (None, caller.user_id):
            raise Refusal(403, "another-user", "a signed-in user acts for themselves: leave user_id out")
        owner = self._owner(session_id)
        if owner is None:
            if ":" in session_id:
                raise InvalidInputError("a new session's ID must not contain a colon: choose another")
            owner = self._claim(session_id, caller.user_id)
        if not _sees(caller, owner):
            raise not_found("session")
        return caller.user_id

    def reserve(self, session_id: str, user_id: str | None) -> None:
        """Keep a session's ID for its user, as the session is about to be deleted."""
        with redis_errors():
            self._redis.set(self._keys.of_owner(session_id), json.dumps(user_id), px=self._claim_ms)

    def reserve_unread(self, session_id: str) -> None:
        """Keep the ID of a session that nobody can read: for whoever has claimed it, else for nobody."""
        claimed = self._claimed(session_id)
        self.reserve(session_id, None if claimed is None else claimed.user_id)

    def _enter_for(self, session_id: str, user_id: str) -> None:
        try:
            owner = self._owner(session_id) or self._claim(session_id, user_id)
        except StoreUnavailableError:
            # They may act for anybody, so the question is only whether they have mixed two users up; that
            # is no reason to accept nothing while the database is away.
            log.warning("a session's user was not checked: the store is away")
            return
        if owner.user_id not in (None, user_id):
            raise Refusal(
                409,
                "another-user",
                "the session is of another user; leave user_id out to write to it all the same",
            )

    def _owner(self, session_id: str) -> Owner | None:
        return self._stored(session_id) or self._claimed(session_id) or self._waiting(session_id)

    def _claim(self, session_id: str, user_id: str | None) -> Owner:
        key, value = self._keys.of_owner(session_id), json.dumps(user_id)
        while True:
            with redis_errors():
                mine = self._redis.set(key, value, nx=True, px=self._claim_ms)
            if not mine:
                if (claimed := self._claimed(session_id)) is not None:
                    return claimed
                continue  # it has just expired
            # Others begin sessions without a claim: channels, and producers in Python. In this order: a turn
            # leaves the mailbox after its session is in the store.
            known = self._waiting(session_id) or self._stored(session_id)
            if known is None or known.user_id == user_id:
                return Owner(user_id)
            with redis_errors():
                self._redis.delete(key)
            return known

    def _load(self, session_id: str) -> SessionState | None:
        with self._store.use() as adapter:
            loaded = adapter.load(session_id)
        return None if loaded is None else loaded.session

    def _stored(self, session_id: str) -> Owner | None:
        session = self._load(session_id)
        return None if session is None else Owner(session.user_id)

    def _claimed(self, session_id: str) -> Owner | None:
        with redis_errors():
            value: Any = self._redis.get(self._keys.of_owner(session_id))
        return None if value is None else Owner(json.loads(value))

    def _waiting(self, session_id: str) -> Owner | None:
        """The user of the turn at the head of the session's mailbox."""
        payload = self._mailbox.head_payload(session_id)
        if payload is None:
            return None
        try:
            return Owner(decode_payload(payload).user_id)
        except (InvalidInputError, UnknownPayloadError):
            return Owner(None)


def _sees(caller: Caller, owner: Owner | None) -> bool:
    return caller.is_trusted or (owner is not None and owner.user_id == caller.user_id)
