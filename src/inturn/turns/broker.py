"""The broker, as those who only publish reach it: short time-outs, few retries, errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inturn.errors import MailboxUnavailableError
from inturn.settings import Settings

if TYPE_CHECKING:
    from celery import Celery


def connect_broker(settings: Settings) -> Celery:
    """Make a Celery application that publishes and asks for results; it connects with its first call."""
    from celery import Celery

    app = Celery("inturn-client", set_as_current=False)
    app.conf.update(
        broker_url=settings.broker,
        result_backend=settings.results,
        result_expires=settings.result_seconds,
        result_backend_thread_safe=True,
        # Celery's own time-out is two minutes: whoever waits two seconds for a reply must not wait that long.
        redis_socket_timeout=5,
        redis_socket_connect_timeout=2,
        broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 2, "max_connections": 64},
        broker_connection_timeout=2,
        task_publish_retry_policy={
            "max_retries": 2,
            "interval_start": 0.1,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
        task_ignore_result=False,
    )
    return app


@contextmanager
def broker_errors(turn_id: str | None = None) -> Iterator[None]:
    """Translate what Celery raises inside the block, where the broker cannot be reached, into ours."""
    from kombu.exceptions import OperationalError

    try:
        yield
    except OperationalError as error:
        again = "repeat the call" if turn_id is None else "repeat the call with the same turn ID"
        raise MailboxUnavailableError(f"the broker cannot be reached; {again}", turn_id=turn_id) from error
