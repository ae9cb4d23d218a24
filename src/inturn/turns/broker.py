"""The broker, as those who only publish reach it: short time-outs, few retries, errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inturn.errors import MailboxUnavailableError
from inturn.settings import Settings
from inturn.turns.transport import is_rabbitmq, publisher_options, queues

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
        broker_transport_options=publisher_options(settings.broker),
        broker_connection_timeout=2,
        task_publish_retry_policy={
            "max_retries": 2,
            "interval_start": 0.1,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
        task_ignore_result=False,
    )
    if is_rabbitmq(settings.broker):
        app.conf.task_queues = queues(settings.broker)
    return app


@contextmanager
def broker_errors(turn_id: str | None = None) -> Iterator[None]:
    """Translate what Celery raises inside the block, where the broker is away or refuses, into ours."""
    from amqp.exceptions import AMQPError
    from kombu.exceptions import OperationalError

    try:
        yield
    except (OperationalError, AMQPError) as error:
        again = "repeat the call" if turn_id is None else "repeat the call with the same turn ID"
        what = (
            "refuses the message; see inturn doctor" if isinstance(error, AMQPError) else "cannot be reached"
        )
        raise MailboxUnavailableError(f"the broker {what}; {again}", turn_id=turn_id) from error
