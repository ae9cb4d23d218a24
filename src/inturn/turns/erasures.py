"""Erasures: whose is asked for, and whose is under way, so that each user's is one task at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from inturn.contract import ERASE_USER, MAINTENANCE_QUEUE
from inturn.errors import MailboxError
from inturn.settings import Settings
from inturn.turns.broker import broker_errors
from inturn.turns.connection import redis_errors

if TYPE_CHECKING:
    from typing import Any

    from celery import Celery
    from celery.result import AsyncResult
    from redis import Redis

ASKED_SECONDS = 60
"""For how long a task that was asked for, and that no worker has begun, is waited for instead of another."""
ALONE_SECONDS = 120
"""How long a worker that gives no sign of life keeps others from erasing the same user, patience aside."""
_LOOK_SECONDS = 0.2


class Erasures:
    """The tasks that erase users, by the hashes of who they are.

    Whoever asks while another's task has not begun waits for that one; once it has begun there is one more,
    for what the user has said meanwhile, and it waits its turn. So of one user there are two tasks, of which
    one works, however often it is asked. Where Redis forgets this there are more, which does no harm.

    Raises `MailboxUnavailableError` where Redis or the broker cannot be reached.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._prefix = f"{settings.key_prefix}:erasure"

    def ask(self, app: Celery, user_id: str, *, patience: float, actor: str | None) -> AsyncResult[Any]:
        """Send the task, or find the one of the same actor that waits to begin, whatever its patience."""
        task_id, key = str(uuid4()), self._asked(user_id, actor)
        with redis_errors():
            is_new = self._redis.set(key, task_id, nx=True, ex=ASKED_SECONDS)
            waiting = None if is_new else self._redis.get(key)
        if isinstance(waiting, str):
            return app.AsyncResult(waiting)
        try:
            with redis_errors(), broker_errors():
                return app.send_task(
                    ERASE_USER,
                    kwargs={"user_id": user_id, "patience": patience, "actor": actor},
                    # A user's ID may be a telephone number: it is not shown to whoever monitors.
                    argsrepr="()",
                    kwargsrepr="{}",
                    task_id=task_id,
                    queue=MAINTENANCE_QUEUE,
                    add_to_parent=False,
                )
        except MailboxError:
            with suppress(MailboxError):
                self._forget(key, task_id)
            raise

    @contextmanager
    def alone(
        self, task_id: str, user_id: str, *, patience: float, actor: str | None
    ) -> Iterator[Callable[[], None]]:
        """Wait until no other task erases this user; call what it gives now and then to keep it so.

        Inside of it whoever asks has another task. A task that comes again, for its worker has died, goes on.
        """
        under_way, asked = self._under_way(user_id), self._asked(user_id, actor)
        seconds = ALONE_SECONDS + round(patience)
        while not self._take(under_way, task_id, seconds):
            with redis_errors():
                self._redis.set(asked, task_id, ex=ASKED_SECONDS)
            time.sleep(_LOOK_SECONDS)
        # In this order: who has found this task asked for has asked before it looks for anything.
        self._forget(asked, task_id)

        def keep() -> None:
            with redis_errors():
                self._redis.expire(under_way, seconds)

        try:
            yield keep
        finally:
            self._forget(under_way, task_id)

    def _take(self, key: str, task_id: str, seconds: int) -> bool:
        with redis_errors():
            is_free = self._redis.set(key, task_id, nx=True, ex=seconds)
            return bool(is_free) or self._redis.get(key) == task_id

    def _forget(self, key: str, task_id: str) -> None:
        with redis_errors():
            # Should it expire in between, and be another's, that one is only not waited for.
            if self._redis.get(key) == task_id:
                self._redis.unlink(key)

    def _asked(self, user_id: str, actor: str | None) -> str:
        # The audit log has everybody who asked: two do not share a task.
        return f"{self._prefix}:{_digest(repr((user_id, actor)))}:asked"

    def _under_way(self, user_id: str) -> str:
        return f"{self._prefix}:{_digest(user_id)}:alone"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
