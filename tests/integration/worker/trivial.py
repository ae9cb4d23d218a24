"""A Celery app without inturn, to test the nodes themselves with."""

from __future__ import annotations

import os
import time

from celery import Celery

app = Celery("trivial", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": 2,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
)


@app.task(name="where")
def where(seconds: float = 0) -> int:
    """Take `seconds` and tell which process did."""
    print(f"began {seconds}", flush=True)
    time.sleep(seconds)
    return os.getpid()
