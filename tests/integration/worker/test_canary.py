"""`inturn doctor --canary`: a worker that takes messages, one that is busy, and ones that only seem alive."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from typer.testing import CliRunner

from inturn.cli import app
from inturn.cli.canary import look
from inturn.client import Client
from inturn.contract import CANARY_SECONDS, canary_queue
from inturn.settings import Settings
from tests.agents import read_journal
from tests.cutting import CuttingProxy
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process


@pytest.mark.parametrize("pool", ["threads", "gevent", "prefork"])
def test_a_healthy_worker_answers_and_a_busy_one_is_not_called_dead(
    pool: str, start_worker: StartWorker, client: Client, turn_settings: Settings, journal: Path
) -> None:
    node = start_worker(pool=pool, concurrency=1)
    (seen,) = look(turn_settings, node.hostname(), 30)
    assert (seen.worker, seen.status) == (node.hostname(), "ok")
    assert "turns" in seen.found

    slots = 4 if pool == "gevent" else 1  # it takes more messages than it works on
    for number in range(slots):
        client.respond(f"s{number}", "long sleep 60")
    wait_until(lambda: read_journal(journal), what="the turn to begin")
    wait_until(lambda: look(turn_settings, None, 1)[0].status == "busy", timeout=60)


def test_a_paused_worker_does_not_answer_until_it_goes_on_and_nothing_is_left_for_it(
    start_worker: StartWorker, turn_settings: Settings, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", broker_url)
    node = start_worker()
    node.kill("SIGSTOP")

    arguments = ["doctor", "--canary", "--worker", node.hostname(), "--timeout", "1", "--json"]
    for _ in range(2):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 1
        assert [each["status"] for each in json.loads(done.stdout)["workers"]] == ["failed"]

    with Redis.from_url(broker_url, decode_responses=True) as redis:
        left = [key for key in redis.scan_iter() if key.startswith(canary_queue(node.hostname()).name)]
        assert left, "a message waits for it"
        assert all(0 < redis.ttl(key) <= CANARY_SECONDS for key in left)
        assert not [key for key in redis.smembers("_kombu.binding.celery") if "canary" in key]

    node.kill("SIGCONT")
    wait_until(lambda: look(turn_settings, node.hostname(), 5)[0].status == "ok", timeout=60)


def test_a_worker_that_answers_and_takes_nothing_is_found(
    start_worker: StartWorker, turn_settings: Settings
) -> None:
    node = start_worker()
    for queue in ("turns", canary_queue(node.hostname()).name):
        node.app.control.cancel_consumer(queue, destination=[node.hostname()])
    wait_until(lambda: node.logs().count("Canceling queue") == 2)

    seen = look(turn_settings, None, 1)

    assert [each.status for each in seen] == ["failed", "failed"]
    assert "takes no messages" in seen[0].found
    assert "queue turns" in seen[1].found


def test_a_worker_whose_connection_was_swallowed_is_found_and_answers_again_later(
    start_worker: StartWorker, turn_settings: Settings, broker_url: str
) -> None:
    with CuttingProxy(urlsplit(broker_url).port or 0) as proxy:
        node = start_worker(INTURN_BROKER_URL=f"redis://127.0.0.1:{proxy.port}/0")
        assert look(turn_settings, node.hostname(), 30)[0].status == "ok"

        proxy.swallows.set()
        wait_until(lambda: look(turn_settings, node.hostname(), 1)[0].status == "failed", timeout=60)

        proxy.swallows.clear()
        proxy.cut()
        wait_until(lambda: look(turn_settings, node.hostname(), 5)[0].status == "ok", timeout=120)


def test_where_no_worker_is_the_probe_fails(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", broker_url)
    done = CliRunner().invoke(app, ["doctor", "--canary"])
    assert (done.exit_code, done.stdout.strip()) == (1, "no worker answered")
