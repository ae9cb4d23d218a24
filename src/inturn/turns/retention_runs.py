"""RetentionRuns: how far retention has come, and what its last runs have done, in Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from inturn.errors import MailboxError
from inturn.retention import RetentionReport, RetentionRun
from inturn.settings import Settings
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys

if TYPE_CHECKING:
    from redis import Redis

MOST_REPORTS = 100
"""Reports that are kept."""
KEEP = timedelta(days=90)
"""How long they are, once no run comes any more."""
KEEP_RUN = timedelta(days=1)
"""How long it is known how far a run has come that nobody goes on with; then the next one begins anew."""
ALONE_SECONDS = 60
"""How long a run is taken to be at work after it was last heard of."""


class RetentionRuns:
    """The runs of one deployment. Nothing in here is what anybody said.

    Raises `MailboxUnavailableError` where Redis cannot be reached, `MailboxError` where it refuses.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._keys = Keys(settings.key_prefix)

    @contextmanager
    def alone(self) -> Iterator[Callable[[RetentionRun], None] | None]:
        """Keep others from beginning, and give the way to note how far the run has come.

        None: somebody else is at work. Whoever notes nothing for a minute is taken to be no more.
        """
        from redis.exceptions import LockError

        lock = self._redis.lock(self._keys.retention_lock, timeout=ALONE_SECONDS, thread_local=False)
        with redis_errors():
            mine = lock.acquire(blocking=False)

        def save(run: RetentionRun) -> None:
            with redis_errors(), suppress(LockError):  # two at work at once do no harm
                self._redis.set(self._keys.retention, run.model_dump_json(), ex=KEEP_RUN)
                lock.reacquire()

        try:
            yield save if mine else None
        finally:
            if mine:
                with suppress(MailboxError), redis_errors(), suppress(LockError):  # then it lapses
                    lock.release()

    def unfinished(self) -> RetentionRun | None:
        """How far the last run has come, if there is more to do."""
        with redis_errors():
            found: Any = self._redis.get(self._keys.retention)
        return None if found is None else RetentionRun.model_validate_json(found)

    def end(self, report: RetentionReport) -> None:
        """Keep the report of a run that has done all; the next one begins at the beginning."""
        reports = self._keys.retention_reports
        with redis_errors():
            self._redis.lpush(reports, report.model_dump_json())
            self._redis.ltrim(reports, 0, MOST_REPORTS - 1)
            self._redis.expire(reports, KEEP)
            self._redis.delete(self._keys.retention)

    def reports(self) -> list[RetentionReport]:
        """The reports of the last runs, the newest first."""
        with redis_errors():
            found: Any = self._redis.lrange(self._keys.retention_reports, 0, -1)
        return [RetentionReport.model_validate_json(text) for text in found]
