"""Celery's configuration: the settings that matter here, each with its reason."""

from __future__ import annotations

from typing import Any

from inturn.contract import (
    CLEANUP_SESSIONS,
    DELIVER,
    DELIVERY_QUEUE,
    ERASE_USER,
    MAINTENANCE_QUEUE,
    ROTATE_KEYS,
    WAKE_SESSIONS,
)
from inturn.settings import Settings
from inturn.turns.transport import BARE_QUEUE, CONFIRMED, is_rabbitmq, priority, queues

from .schedule import beat_schedule

GEVENT_PREFETCH = 4
"""At the prefetch limit the gevent loop polls for two seconds with acknowledgements pending: four times the
concurrency keeps it away from the limit. Threads and prefork take no message they cannot start."""


def celery_config(settings: Settings) -> dict[str, Any]:
    """Make the configuration of the worker, beat and Flower."""
    return {
        "broker_url": settings.broker,
        "result_backend": settings.results,
        "task_default_queue": BARE_QUEUE,
        # A worker without `-Q` does everything. The Procfile gives deliveries a process of their own, so that
        # a platform that answers slowly takes no turn's place.
        "task_queues": queues(settings.broker),
        "task_routes": {
            DELIVER: {"queue": DELIVERY_QUEUE},
            CLEANUP_SESSIONS: {"queue": MAINTENANCE_QUEUE},
            WAKE_SESSIONS: {"queue": MAINTENANCE_QUEUE},
            ROTATE_KEYS: {"queue": MAINTENANCE_QUEUE},
            ERASE_USER: {"queue": MAINTENANCE_QUEUE},
        },
        # Kombu on Redis serves 0 first, and unset is 0: ordinary work must leave room for recovery.
        "task_default_priority": priority(settings.broker, urgent=False),
        # A message is acknowledged when its work is done. A second delivery only parks or finds it done,
        # so a short visibility time-out is safe, the reverse of the usual advice.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_consumer": f"{__package__}.consumer:Consumer",
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # for ever: Celery's hundred tries are over in minutes
        "broker_transport_options": _transport(settings.broker),
        "result_backend_transport_options": {"retry_policy": {"timeout": 5.0, "max_retries": 3}},
        # Otherwise every greenlet builds a backend, with connections, of its own.
        "result_backend_thread_safe": True,
        "result_expires": settings.result_seconds,
        # A late STARTED would overwrite a FAILURE, and then `get()` waits for ever.
        "task_track_started": False,
        # Arguments may hold a user's words; neither results nor events may.
        "result_extended": False,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "worker_hijack_root_logger": False,
        "enable_utc": True,
        "timezone": "UTC",
        "beat_schedule": beat_schedule(settings),
        "beat_scheduler": f"{__package__}.beat:Scheduler",
    }


def _transport(broker_url: str) -> dict[str, Any]:
    if is_rabbitmq(broker_url):
        # It sees by itself when a consumer is gone, and gives its messages to another.
        return {**CONFIRMED, "read_timeout": 30, "write_timeout": 30}
    return {
        "visibility_timeout": 120,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # Must exceed the concurrency: acknowledgements run in the pool's greenlets, and kombu drops the
        # broker's connection, and messages with it, when its pool of ten is empty.
        "max_connections": 4096,
        "socket_timeout": 30,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }
