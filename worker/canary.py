"""Canary: shows that this worker takes messages, and not only that it answers.

A worker can lose its consumer when a connection is lost, and go on to answer pings and to renew its leases.
So each worker also takes a queue of its own, on the very channel on which it takes turns, and answers what
comes there at once, in the loop that receives: no slot of the pool is needed. Nothing is put among the turns.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import structlog
from celery import bootsteps
from celery.worker import state
from celery.worker.consumer import Tasks
from celery.worker.control import inspect_command

from inturn.contract import CANARY, CANARY_SECONDS, canary_queue
from inturn.errors import MailboxError
from inturn.settings import load_settings
from inturn.turns.connection import connect, redis_errors
from inturn.turns.keys import Keys

from .celery import app

log = structlog.get_logger(__name__)


class CanaryQueue(bootsteps.StartStopStep):
    """Adds the worker's own queue to those that it takes; again after each reconnection."""

    requires = (Tasks,)

    def start(self, parent: Any) -> None:
        """Before the loop begins to receive."""
        parent.task_consumer.add_queue(canary_queue(parent.hostname))


app.steps["consumer"].add(CanaryQueue)


@app.task(name=CANARY, ignore_result=True, Strategy=f"{__name__}:answer_at_once")
def canary(canary_id: str) -> None:
    """Nothing: the consumer answers it, see `answer_at_once`."""


def answer_at_once(_task: Any, _app: Any, consumer: Any, **_: Any) -> Callable[..., None]:
    """Celery's hook for what becomes of a task's messages when they are received."""

    def on_message(message: Any, *_: Any) -> None:
        message.ack_log_error(log, consumer.connection_errors)
        try:
            _, kwargs, _ = message.payload
            _answer(str(kwargs["canary_id"]), {"worker": consumer.hostname, "queues": _queues(consumer)})
        except MailboxError as error:
            log.warning("canary not answered", error=str(error))
        except (KeyError, TypeError, ValueError):
            log.warning("canary refused: it is not as this release sends it")

    return on_message


@inspect_command()
def canary_state(state: Any) -> dict[str, Any]:
    """What the worker has in hand, told on another way than that of its messages."""
    return in_hand(state.consumer)


def in_hand(consumer: Any) -> dict[str, Any]:
    """Messages that were taken and are not done, and how many it takes at most."""
    return {
        "in_hand": len(state.reserved_requests),
        "most": consumer.qos.value,
        "queues": _queues(consumer),
    }


def _queues(consumer: Any) -> list[str]:
    return sorted(queue.name for queue in consumer.task_consumer.queues)


def _answer(canary_id: str, answer: dict[str, Any]) -> None:
    settings = load_settings()
    key = Keys(settings.key_prefix).of_canary(canary_id)
    # Opened and closed here: the parent of a prefork pool must hold no connection.
    with (
        connect(settings, connections=1, timeout=2.0, retries=1) as client,
        redis_errors(),
        client.pipeline() as pipe,
    ):
        pipe.rpush(key, json.dumps(answer))
        pipe.expire(key, CANARY_SECONDS)
        pipe.execute()
