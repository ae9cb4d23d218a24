"""What is set for each broker: Redis by default, RabbitMQ where its URL is given."""

from __future__ import annotations

import pytest

from inturn.settings import load_settings
from inturn.turns.broker import connect_broker
from inturn.turns.transport import is_rabbitmq, priority, publisher_options, queues
from worker.config import celery_config

REDIS = "redis://127.0.0.1:6379/0"
RABBITMQ = "amqp://user:password@rabbit-1:5672//;amqp://user:password@rabbit-2:5672//"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(RABBITMQ, True, id="several-nodes"),
        pytest.param("amqps://rabbit//", True, id="tls"),
        pytest.param(REDIS, False, id="redis"),
        pytest.param("sentinel://127.0.0.1:26379", False, id="sentinel"),
    ],
)
def test_a_broker_is_known_by_its_url(url: str, expected: bool) -> None:
    assert is_rabbitmq(url) is expected


def test_recovery_goes_first_on_both_though_they_count_the_other_way_round() -> None:
    assert priority(REDIS, urgent=True) < priority(REDIS, urgent=False)
    assert priority(RABBITMQ, urgent=True) > 4 > priority(RABBITMQ, urgent=False)


@pytest.mark.parametrize("url", [pytest.param(REDIS, id="redis"), pytest.param(RABBITMQ, id="rabbitmq")])
def test_each_queue_has_a_routing_key_of_its_own(url: str) -> None:
    assert {queue.routing_key for queue in queues(url)} == {"turns", "maintenance", "delivery", "celery"}


def test_producers_and_workers_declare_the_same_queues_on_rabbitmq() -> None:
    settings = load_settings(broker_url=RABBITMQ)
    worker = {queue.name: queue.queue_arguments for queue in celery_config(settings)["task_queues"]}
    with connect_broker(settings) as producer:
        found = {name: queue.queue_arguments for name, queue in producer.amqp.queues.items()}
    assert found == worker
    assert worker["turns"]["x-queue-type"] == "quorum"
    assert not worker["celery"]


def test_each_broker_is_given_what_it_understands() -> None:
    redis = celery_config(load_settings(redis_url=REDIS))
    rabbitmq = celery_config(load_settings(redis_url=REDIS, broker_url=RABBITMQ))
    assert redis["broker_transport_options"]["visibility_timeout"] == 120
    assert rabbitmq["broker_transport_options"] == {
        "confirm_publish": True,
        "read_timeout": 30,
        "write_timeout": 30,
    }
    assert publisher_options(REDIS)["socket_timeout"] == publisher_options(RABBITMQ)["read_timeout"] == 5
    assert rabbitmq["result_backend"] == REDIS
