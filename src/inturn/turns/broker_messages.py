"""Broker messages: turns that were sent without this library, with the user's words in the message itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from inturn.contract import RESPOND, SAVE_SESSION, TURNS_QUEUE
from inturn.turns.connection import redis_errors

if TYPE_CHECKING:
    from celery import Celery

_PAGE = 500


def remove_messages(app: Celery, session_ids: Collection[str], user_id: str, *, dry_run: bool) -> int:
    """Remove messages of these sessions, or of this user, that carry a turn; returns how many there are.

    Those that wait in the queues `turns` and `celery`, and those that a worker has taken and not answered
    for. Messages of this library name a session and hold nothing that was said, so they stay. 0 on a broker
    that is no Redis: its queues can only be emptied by whoever works through them. Raises
    `MailboxUnavailableError`.
    """
    url = str(app.conf.broker_url)
    if not url.startswith(("redis://", "rediss://")):
        return 0
    ids = set(session_ids)

    def is_theirs(message: Any) -> bool:
        headers = message.get("headers", {})
        if headers.get("task") not in (RESPOND, SAVE_SESSION):
            return False
        _, kwargs, _ = json.loads(base64.b64decode(message["body"]))
        carries = set(kwargs) != {"session_id"}
        return carries and (kwargs.get("session_id") in ids or kwargs.get("user_id") == user_id)

    removed = 0
    with redis_errors(), app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        client = channel.client
        for queue in (TURNS_QUEUE, "celery"):
            for step in channel.priority_steps:
                name = channel._q_for_pri(queue, step)
                found = [raw for raw in _listed(client, name) if _reads(raw, is_theirs)]
                removed += len(found) if dry_run else sum(client.lrem(name, 1, raw) for raw in found)
        for tag, raw in list(client.hscan_iter(channel.unacked_key, count=_PAGE)):
            if _reads(raw, lambda taken: is_theirs(taken[0])):
                removed += 1
                if not dry_run:
                    client.zrem(channel.unacked_index_key, tag)
                    client.hdel(channel.unacked_key, tag)
    return removed


def _listed(client: Any, name: str) -> list[bytes]:
    found: list[bytes] = []
    for start in range(0, client.llen(name), _PAGE):
        found += client.lrange(name, start, start + _PAGE - 1)
    return found


def _reads(raw: bytes, matches: Callable[[Any], bool]) -> bool:
    try:
        return matches(json.loads(raw))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False  # of another program, or of another form
