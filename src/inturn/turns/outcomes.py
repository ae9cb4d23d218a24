"""Outcomes: the deliveries that somebody should look at, newest first, as far as Redis remembers them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from inturn.contract import DeliveryView
from inturn.session.state import Delivery
from inturn.settings import Settings
from inturn.turns.connection import redis_errors

if TYPE_CHECKING:
    from redis import Redis

MOST_OUTCOMES = 1000
"""Outcomes that are remembered."""
KEEP_SECONDS = 30 * 86_400
"""How long each of them is."""


class Outcomes:
    """A list for an overview; what a delivery has come to is in its session.

    Raises `MailboxUnavailableError` where Redis cannot be reached, `MailboxError` where it refuses. The same
    outcome told twice counts once.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._key = f"{settings.key_prefix}-out:outcomes"

    def note(self, session_id: str, turn_id: str, delivery: Delivery) -> None:
        """Remember how a delivery ended; one that was asked for again and has arrived is dropped by that."""
        fields: dict[Any, Any] = {
            "session": session_id,
            "turn": turn_id,
            "channel": delivery.channel,
            "state": delivery.state,
            "doubtful": int(delivery.doubtful),
            "error": delivery.error or "",
        }
        with redis_errors(), self._redis.pipeline() as pipe:
            pipe.xadd(self._key, fields, maxlen=MOST_OUTCOMES, approximate=False)
            pipe.xtrim(self._key, minid=int(time.time() - KEEP_SECONDS) * 1000, approximate=False)
            pipe.expire(self._key, KEEP_SECONDS)
            pipe.execute()

    def remove_sessions(self, session_ids: Iterable[str]) -> None:
        """Forget what is known of the deliveries of sessions, which have been deleted."""
        ids = set(session_ids)
        with redis_errors():
            found: Any = self._redis.xrange(self._key)
            if gone := [entry_id for entry_id, fields in found if fields["session"] in ids]:
                self._redis.xdel(self._key, *gone)

    def read(self) -> Iterator[DeliveryView]:
        """What each of them came to last, but for those that have safely arrived in the end."""
        with redis_errors():
            found: Any = self._redis.xrevrange(self._key)
        seen = set()
        for entry_id, fields in found:
            name = fields["session"], fields["turn"]
            if name in seen:
                continue
            seen.add(name)
            doubtful = fields["doubtful"] == "1"
            if fields["state"] == "sent" and not doubtful:
                continue
            yield DeliveryView(
                session_id=fields["session"],
                turn_id=fields["turn"],
                channel=fields["channel"],
                state=fields["state"],
                doubtful=doubtful,
                error=fields["error"] or None,
                since=datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC),
            )
