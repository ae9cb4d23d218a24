"""Publishing the message that makes a worker look at a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inturn.contract import (
    DELIVER,
    DELIVERY_QUEUE,
    PRIORITY_NORMAL,
    PRIORITY_RECOVERY,
    RESPOND,
    TURNS_QUEUE,
)

if TYPE_CHECKING:
    from celery import Celery


def publish_turn(app: Celery, session_id: str, turn_id: str, *, urgent: bool = False) -> None:
    """Send the task `respond` for the session, with the turn's ID as the task's.

    The message names the session only; what the turn says stays in the mailbox, so neither broker nor logs
    nor Flower see it. Raises kombu's `OperationalError` if the broker cannot be reached.
    """
    app.send_task(
        RESPOND,
        kwargs={"session_id": session_id},
        task_id=turn_id,
        queue=TURNS_QUEUE,
        priority=PRIORITY_RECOVERY if urgent else PRIORITY_NORMAL,
        # The result is stored by whoever drives the session, under the turn's ID; whoever waits for it
        # subscribes when asking. And a wake-up is no child of the task that happens to publish it.
        ignore_result=True,
        add_to_parent=False,
    )


def count_messages(app: Celery, queue: str) -> int:
    """How many messages of a queue wait in the broker; 0 where it does not say."""
    try:
        with app.pool.acquire(block=True) as connection:
            channel: Any = connection.default_channel  # type: ignore[attr-defined]  # the stubs have it wrong
            return int(channel.queue_declare(queue, passive=True).message_count)
    except Exception:  # whatever the transport is: without an answer nobody waits longer
        return 0


def publish_delivery(app: Celery, session_id: str, *, urgent: bool = False) -> None:
    """Send the task `deliver` for the session; it names nothing else. Raises as `publish_turn`."""
    app.send_task(
        DELIVER,
        kwargs={"session_id": session_id},
        queue=DELIVERY_QUEUE,
        priority=PRIORITY_RECOVERY if urgent else PRIORITY_NORMAL,
        ignore_result=True,
        add_to_parent=False,
    )
