"""Transport: what differs between the two brokers that turns' messages may travel by, Redis and RabbitMQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inturn.contract import (
    DELIVERY_QUEUE,
    MAINTENANCE_QUEUE,
    PRIORITY_NORMAL,
    PRIORITY_RECOVERY,
    TURNS_QUEUE,
)

if TYPE_CHECKING:
    from kombu import Queue

BARE_QUEUE: Final = "celery"
"""Where a program without this library sends a bare `send_task("respond", ...)`."""

CONFIRMED: Final = {"confirm_publish": True}
"""Without it a message into a connection that was just lost is lost as well, in silence."""

CONFIRM_SECONDS: Final = 5.0
"""How long RabbitMQ may take to say that it has a message; then it counts as away. Redis says so at once."""


def is_rabbitmq(broker_url: str) -> bool:
    """Whether the URL is of AMQP, or the first of several, with semicolons between them, of a cluster."""
    return broker_url.startswith(("amqp://", "amqps://", "pyamqp://", "pyamqps://"))


def priority(broker_url: str, *, urgent: bool) -> int:
    """A message's priority.

    Redis serves 0 first, and RabbitMQ the highest. Of quorum queues release 4 knows two at least, with 5 and
    above before the others; release 3 knows none, and serves in order.
    """
    if is_rabbitmq(broker_url):
        return 9 if urgent else 0
    return PRIORITY_RECOVERY if urgent else PRIORITY_NORMAL


def queues(broker_url: str) -> list[Queue]:
    """The queues of turns.

    On RabbitMQ producers and workers have to declare them alike. They are quorum queues there: what they have
    taken, a majority of the nodes has. Only `celery` is not: a program without this library would declare a
    classic one, and RabbitMQ refuses whoever differs.
    """
    from kombu import Queue

    # Release 4 would throw a message away that came back twenty times; tries are counted in the mailbox.
    quorum = {"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1}
    arguments = quorum if is_rabbitmq(broker_url) else None
    ours = [
        Queue(name, routing_key=name, queue_arguments=arguments)
        for name in (TURNS_QUEUE, MAINTENANCE_QUEUE, DELIVERY_QUEUE)
    ]
    return [*ours, Queue(BARE_QUEUE, routing_key=BARE_QUEUE)]


def publisher_options(broker_url: str) -> dict[str, Any]:
    """Celery's `broker_transport_options` of those who only publish and ask."""
    if is_rabbitmq(broker_url):
        return {**CONFIRMED, "read_timeout": 5, "write_timeout": 5}
    return {"socket_timeout": 5, "socket_connect_timeout": 2, "max_connections": 64}


def declare_queues(connection: Any, broker_url: str) -> None:
    """Make the queues on a kombu connection, as a worker does when it starts.

    Raises amqp's `PreconditionFailed`, which names the queue, where somebody has made one differently.
    """
    for queue in queues(broker_url):
        queue(connection.default_channel).declare()
