"""Consumer: Celery's, made to outlive a broker that restarts."""

from __future__ import annotations

from functools import partial
from typing import Any

from celery.worker import consumer

RETRY_SECONDS = 2
"""How often a lost broker is looked for."""


_Blueprint: Any = consumer.Consumer.Blueprint


class Consumer(consumer.Consumer):
    """Goes on after a lost connection also while tasks are at work.

    With kombu 5.7 Celery closes the lost connection twice, and the second time the channel tries to put its
    messages back by a transport that has no connection any more: an `AttributeError`, which Celery takes for
    unrecoverable, and the worker ends. So does an acknowledgement that comes later by the same channel.
    """

    task_consumer: Any

    class Blueprint(_Blueprint):  # type: ignore[misc]  # the stubs have it wrong
        """See Celery."""

        # For quorum queues Celery would make 28 more of them, for messages with a time to wait. None of ours
        # has one, and they could not travel by exchanges like ours.
        default_steps = tuple(step for step in _Blueprint.default_steps if "delayed_delivery" not in step)

    def ensure_connected(self, conn: Any) -> Any:
        """See Celery, which would wait longer from try to try: up to half a minute after a broker is back."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=RETRY_SECONDS)
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """See Celery. Nothing can be put back now: the visibility time-out brings back what is not done."""
        connection: Any = self.connection
        transport = connection.transport
        if transport.driver_type != "redis":
            # RabbitMQ has put it back already, and takes no late acknowledgement.
            super().on_connection_error_after_connected(exc)
            return
        channel = self.task_consumer.channel if self.task_consumer is not None else None
        if channel is not None:
            channel.qos.restore_at_shutdown = False
        super().on_connection_error_after_connected(exc)
        # Tasks at work will acknowledge by this channel, which then connects anew.
        transport.client = connection
        if channel is not None:
            channel.connection = transport
