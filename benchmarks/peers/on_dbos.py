"""DBOS: a queue partitioned by session, one workflow of a partition at a time; a turn is one workflow.

`BENCH_POLL` is how often a worker looks for workflows, in seconds (DBOS' own default is 1).
"""

from __future__ import annotations

import os
import threading
from typing import Any

from dbos import DBOS, DBOSClient

from benchmarks.peers import work

QUEUE = "turns"
URL = os.environ["BENCH_QUEUE_DATABASE"].replace("postgresql://", "postgresql+psycopg://")


@DBOS.workflow(name="turn")
def turn(session_id: str, number: int, latency: float) -> None:
    work.take(session_id, number, latency)


def _launch() -> None:
    config: Any = {
        "name": "peers",
        "system_database_url": URL,
        "application_version": "1",
        "log_level": "WARNING",
        "sys_db_pool_size": 20,
    }
    DBOS(config=config)
    DBOS.launch()


def setup() -> None:
    _launch()
    poll = float(os.environ.get("BENCH_POLL", "1"))
    DBOS.register_queue(QUEUE, partition_concurrency=1, worker_concurrency=16, polling_interval_sec=poll)
    DBOS.destroy()


def enqueue(turns: list[work.Planned]) -> None:
    client = DBOSClient(system_database_url=URL)
    for session_id, number, latency in turns:
        options: Any = {
            "workflow_name": "turn",
            "queue_name": QUEUE,
            "queue_partition_key": session_id,
            "app_version": "1",
            "application_name": "peers",
        }
        client.enqueue(options, session_id, number, latency)
    client.destroy()


def run() -> None:
    _launch()
    threading.Event().wait()
