"""Dead letters: the turns that were given up, in Redis, until somebody runs them again or drops them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from inturn.contract import DeadLetter
from inturn.envelopes import Envelopes
from inturn.settings import Settings
from inturn.turns.connection import redis_errors
from inturn.turns.keys import BUCKETS, Keys
from inturn.turns.scripts import Scripts

if TYPE_CHECKING:
    from redis import Redis

_AT_ONCE = 200


class DeadLetters:
    """All dead letters on one Redis (or Valkey) server or cluster.

    Each is kept for `INTURN_DEAD_DAYS`, and about `INTURN_MAX_DEAD` of them in all: the oldest go first. What
    was said lies apart from the rest, and nothing but `payload` reads it. Raises `MailboxUnavailableError`
    where Redis cannot be reached, `MailboxError` where it refuses.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._keys = Keys(settings.key_prefix)
        self._envelopes = Envelopes.of(settings)
        self._scripts = Scripts(redis, "bury", "exhume")
        self._keep_ms = round(settings.dead_days * 86_400_000)
        self._most = math.ceil(settings.max_dead / BUCKETS)

    def put(self, letter: DeadLetter, payload: str) -> bool:
        """Keep a turn with its payload, as it was offered; False: it is there, and stays as it was.

        When it failed is when it was put here; the letter's own time is not looked at.
        """
        facts = letter.model_dump_json(exclude={"failed_at", "session_id", "turn_id"}, exclude_none=True)
        name = _name(letter.session_id, letter.turn_id)
        keys = self._keys.of_dead(letter.session_id)
        sealed = self._envelopes.seal(letter.session_id, payload)
        return bool(self._scripts.run("bury", keys, name, facts, sealed, self._keep_ms, self._most))

    def letters(self, session_id: str | None = None) -> Iterator[DeadLetter]:
        """All letters, or those of one session; those of a session in the order in which they failed."""
        buckets = self._keys.dead if session_id is None else [self._keys.of_dead(session_id)]
        for keys in buckets:
            with redis_errors():
                found: Any = self._redis.zrange(keys[0], 0, -1, withscores=True)
            since = time.time() * 1000 - self._keep_ms
            scored = [(name, score) for name, score in found if score > since]
            if session_id is not None:
                scored = [(name, score) for name, score in scored if _session_of(name) == session_id]
            for start in range(0, len(scored), _AT_ONCE):
                yield from self._read(keys[1], scored[start : start + _AT_ONCE])

    def get(self, session_id: str, turn_id: str) -> DeadLetter | None:
        """One letter; None: there is none of this turn."""
        index, facts, _ = self._keys.of_dead(session_id)
        name = _name(session_id, turn_id)
        with redis_errors():
            score: Any = self._redis.zscore(index, name)
        if score is None or score <= time.time() * 1000 - self._keep_ms:
            return None
        return next(self._read(facts, [(name, score)]), None)

    def payload(self, session_id: str, turn_id: str) -> str | None:
        """What was offered, with all that the user said; None: there is no such letter."""
        with redis_errors():
            found: Any = self._redis.hget(self._keys.of_dead(session_id)[2], _name(session_id, turn_id))
        return None if found is None else self._envelopes.open(session_id, str(found))

    def remove(self, session_id: str, turn_id: str) -> bool:
        """Forget one letter; False: there was none."""
        return bool(self._remove(self._keys.of_dead(session_id), [_name(session_id, turn_id)]))

    def remove_session(self, session_id: str) -> int:
        """Forget all letters of a session, which is being erased; returns how many there were."""
        return self.remove_sessions([session_id])

    def remove_sessions(self, session_ids: Iterable[str]) -> int:
        """The same for many sessions; one round trip for each of their buckets without letters."""
        ids = set(session_ids)
        removed = 0
        for keys in {keys[0]: keys for keys in map(self._keys.of_dead, ids)}.values():
            with redis_errors():
                found: Any = self._redis.zrange(keys[0], 0, -1)
            removed += self._remove(keys, [name for name in found if _session_of(name) in ids])
        return removed

    def _read(self, facts: str, scored: Sequence[tuple[str, float]]) -> Iterator[DeadLetter]:
        with redis_errors():
            found: Any = self._redis.hmget(facts, [name for name, _ in scored])
        for (name, score), text in zip(scored, found, strict=True):
            if text is not None:  # else it went while we looked
                session, _, turn_id = name.partition(" ")
                failed_at = datetime.fromtimestamp(score / 1000, UTC)
                letter = DeadLetter.model_validate_json(text)
                yield letter.model_copy(
                    update={"session_id": unquote(session), "turn_id": turn_id, "failed_at": failed_at}
                )

    def _remove(self, keys: Sequence[str], names: Sequence[str]) -> int:
        if not names:
            return 0
        removed = 0
        for start in range(0, len(names), _AT_ONCE):
            removed += self._scripts.run("exhume", keys, *names[start : start + _AT_ONCE])
        return removed


def _name(session_id: str, turn_id: str) -> str:
    return f"{quote(session_id, safe='')} {turn_id}"


def _session_of(name: str) -> str:
    return unquote(name.partition(" ")[0])
