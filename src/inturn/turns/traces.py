"""Traces: what Redis still knows of a session that has been deleted from the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from inturn.settings import Settings
from inturn.turns.batch import Call, send
from inturn.turns.connection import redis_errors
from inturn.turns.dead_letters import DeadLetters
from inturn.turns.keys import Keys
from inturn.turns.outcomes import Outcomes
from inturn.turns.scripts import Scripts

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis


class Traces:
    """Removes what there is of sessions in Redis: mailboxes, streams, results, dead letters, deliveries.

    The IDs of turns that are done stay until they expire, so that the same event again is known. Whose turns
    wait or run again by now is a new session, and keeps its mailbox. Raises `MailboxUnavailableError` where
    Redis cannot be reached, `MailboxError` where it refuses; every call may be repeated.
    """

    def __init__(self, redis: Redis, settings: Settings, app: Celery) -> None:
        self._redis = redis
        self._app = app
        self._keys = Keys(settings.key_prefix)
        self._out = Keys(f"{settings.key_prefix}-out")
        self._scripts = Scripts(redis, "forget")
        self._dead = DeadLetters(redis, settings)
        self._outcomes = Outcomes(redis, settings)
        self.seconds = max(settings.result_seconds, settings.stream_seconds, settings.done_seconds)
        """How long after its last turn a session's streams, results and mailboxes expire by themselves."""

    def forget(self, sessions: Mapping[str, Iterable[str]]) -> None:
        """Remove all of these sessions; with each come those of its turns that may have left something."""
        if not sessions:
            return
        done = {session_id: set(turns) for session_id, turns in sessions.items()}
        ids = list(done)
        calls = [
            ("forget", keys.of_session(session_id), (session_id,))
            for keys in (self._keys, self._out)
            for session_id in ids
        ]
        idle = []
        # Of the out mailbox the IDs are those of tries, which have neither a stream nor a result.
        for session_id, (gone, *turns) in zip(ids, self._scripts.pipeline(calls), strict=False):
            done[session_id] |= set(turns)
            if gone:
                idle.append(session_id)
        streams = [
            self._keys.of_stream(session_id, turn)[1] for session_id, turns in done.items() for turn in turns
        ]
        owners = [self._keys.of_owner(session_id) for session_id in idle]
        with redis_errors():
            send(self._redis, [Call(key, ("UNLINK", key)) for key in [*streams, *owners]])
            backend: Any = self._app.backend
            for turn in {turn for turns in done.values() for turn in turns}:
                with suppress(NotImplementedError):  # a backend that keeps nothing
                    backend.forget(turn)
        self._dead.remove_sessions(ids)
        self._outcomes.remove_sessions(ids)
