"""Tickets: they open one turn's events, for readers that can send no header (a browser's `EventSource`)."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

from redis import Redis

from inturn.settings import Settings
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys

from .auth import Caller

TICKET_SECONDS = 3600
"""How long a ticket may be used, also again: who was cut off connects anew with the same address."""


class Tickets:
    """They are random, and kept in Redis by their digests: processes need not share a secret."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._keys = Keys(settings.key_prefix)

    def issue(self, caller: Caller, turn_id: str) -> str:
        """Make a ticket for the events of this turn."""
        ticket = secrets.token_urlsafe(32)
        with redis_errors():
            self._redis.set(
                self._key(ticket), json.dumps([turn_id, caller.name, caller.user_id]), ex=TICKET_SECONDS
            )
        return ticket

    def holder(self, ticket: str, turn_id: str) -> Caller | None:
        """Who was given the ticket; None if it is not for the events of this turn, or too old."""
        with redis_errors():
            found: Any = self._redis.get(self._key(ticket))
        if found is None:
            return None
        opens, name, user_id = json.loads(found)
        return Caller(name, user_id) if opens == turn_id else None

    def _key(self, ticket: str) -> str:
        return self._keys.of_ticket(hashlib.sha256(ticket.encode(errors="replace")).hexdigest())
