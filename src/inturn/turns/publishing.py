"""Publishing the message that makes a worker look at a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inturn.contract import DELIVER, DELIVERY_QUEUE, RESPOND, TURNS_QUEUE
from inturn.turns.broker import broker_errors
from inturn.turns.connection import redis_errors
from inturn.turns.transport import CONFIRM_SECONDS, priority

if TYPE_CHECKING:
    from celery import Celery


def publish_turn(app: Celery, session_id: str, turn_id: str, *, urgent: bool = False) -> None:
    """Send the task `respond` for the session, with the turn's ID as the task's.

    The message names the session only; what the turn says stays in the mailbox, so neither broker nor logs
    nor Flower see it. Raises `MailboxError` if the broker cannot be reached, or refuses the message.
    """
    with broker_errors(turn_id), redis_errors():
        app.send_task(
            RESPOND,
            kwargs={"session_id": session_id},
            task_id=turn_id,
            queue=TURNS_QUEUE,
            priority=priority(app.conf.broker_write_url, urgent=urgent),
            confirm_timeout=CONFIRM_SECONDS,
            # The result is stored by whoever drives the session, under the turn's ID; whoever waits for it
            # subscribes when asking. And a wake-up is no child of the task that happens to publish it.
            ignore_result=True,
            add_to_parent=False,
        )


def count_messages(app: Celery, queue: str) -> int:
    """How many messages of a queue wait in the broker; 0 where it does not say."""
    try:
        with app.pool.acquire(block=True) as acquired:
            connection: Any = acquired
            try:
                return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
            except OSError:
                connection.collect()  # else RabbitMQ's stays in the pool, lost as it is
                raise
    except Exception:  # whatever the transport is: without an answer nobody waits longer
        return 0


def publish_delivery(
    app: Celery, session_id: str, *, urgent: bool = False, turn_id: str | None = None
) -> None:
    """Send the task `deliver` for the session; it names nothing else.

    Raises as `publish_turn`; `turn_id` is what the caller is to repeat the call with, if they are.
    """
    with broker_errors(turn_id), redis_errors():
        app.send_task(
            DELIVER,
            kwargs={"session_id": session_id},
            queue=DELIVERY_QUEUE,
            priority=priority(app.conf.broker_write_url, urgent=urgent),
            confirm_timeout=CONFIRM_SECONDS,
            ignore_result=True,
            add_to_parent=False,
        )
