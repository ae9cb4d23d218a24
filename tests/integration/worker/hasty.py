"""The worker's app with tasks of retention that are at work for a moment only."""

from __future__ import annotations

from worker import retention
from worker.celery import app as app

retention.BUDGET_SECONDS = 0.05
