"""The worker's app for `benchmarks.retention`: retention works for `BENCH_BUDGET` seconds when it is asked.

It does not go on by itself.
"""

from __future__ import annotations

import os

from worker import retention
from worker.celery import app as app
from worker.runtime import Runtime

retention.BUDGET_SECONDS = float(os.environ["BENCH_BUDGET"])


def nothing(runtime: Runtime) -> None:
    """What is left waits until the benchmark asks."""


retention.ask_for_more = nothing
