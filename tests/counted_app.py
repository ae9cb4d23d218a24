"""The worker's app for counting what a turn costs: no turn is slow.

Of one that takes more than a second the store is asked once more whether it was erased, and on a busy machine
any may take that.
"""

from __future__ import annotations

from inturn.persistence import tombstones

tombstones.SLOW_SECONDS = 3600.0

from worker.celery import app as app  # noqa: E402  # those that ask take the number as they are imported
