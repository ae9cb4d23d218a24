"""What is published, and what is known of the queue."""

from __future__ import annotations

from typing import Any

from celery import Celery

from inturn.embedded.ports import free_port
from inturn.embedded.valkey import EmbeddedValkey
from inturn.turns.publishing import count_messages, publish_turn


def test_the_messages_that_wait_are_counted_whatever_their_priority(valkey: EmbeddedValkey) -> None:
    broker = f"redis://127.0.0.1:{valkey.port}/9"
    with Celery("counting", broker=broker, backend=broker, set_as_current=False) as app:
        assert count_messages(app, "turns") == 0
        for number in range(3):
            publish_turn(app, "s", f"t{number}", urgent=number == 0)
        try:
            assert count_messages(app, "turns") == 3
            assert count_messages(app, "another") == 0
        finally:
            with app.connection_for_write() as connection:
                channel: Any = connection.default_channel
                channel.queue_purge("turns")
        assert count_messages(app, "turns") == 0


def test_a_broker_that_is_away_counts_for_none() -> None:
    with Celery("away", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False) as app:
        app.conf.broker_transport_options = {"socket_connect_timeout": 1}
        app.conf.broker_connection_timeout = 1
        assert count_messages(app, "turns") == 0
