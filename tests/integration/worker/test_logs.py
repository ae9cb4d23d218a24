"""A session is followed by its ID through the logs of all processes that had to do with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_celery import CeleryTestWorker

from tests.channels import SECRET, Receiver
from tests.collector import collecting
from tests.integration.worker.conftest import StartWeb, StartWorker
from tests.nodes import ProcessContainer
from tests.waiting import wait_until

pytestmark = pytest.mark.process

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAID = "nobody's business"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def lines(process: ProcessContainer | CeleryTestWorker, session_id: str) -> list[dict[str, Any]]:
    """What a process has said of a session."""
    logs = process.logs()
    text = logs.decode() if isinstance(logs, bytes) else str(logs)
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in found if line.get("session_id") == session_id]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_every_line_of_a_turn_names_session_turn_task_and_trace(
    pool: str,
    start_web: StartWeb,
    start_worker: StartWorker,
    receiver: Receiver,
) -> None:
    with collecting() as collector:
        env = {
            "INTURN_RETRY_SECONDS": "0.1",
            "INTURN_SWEEP_SECONDS": "0.2",
            "INTURN_AGENT": "tests.channels:agent",
            "INTURN_CHANNELS": "tests.channels:channel",
            "INTURN_LOG_FORMAT": "json",
            "TEST_RECEIVER": receiver.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        web = start_web(**env)
        worker = start_worker(pool=pool, concurrency=2, **env)
        for session in ("followed", "other"):
            message = {"id": "e1", "session": session, "text": f"unavailable 1 {SAID}", "to": session}
            web.client.post(
                "/channels/recording",
                json={"messages": [message]},
                headers={"X-Secret": SECRET, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
            )

        def sent() -> bool:
            return any(line["event"] == "delivery sent" for line in lines(worker, "followed"))

        wait_until(sent, timeout=60, what="the delivery in the log")

    accepted = [line for line in lines(web.process, "followed") if line["event"] == "turn accepted"]
    assert len(accepted) == 1
    # A sweeper knows of a session what it has to wake, and no more.
    worked = [line for line in lines(worker, "followed") if line["event"] != "session woken"]
    told = [line["event"] for line in worked if line["event"] != "slow persistence"]
    assert told == ["turn will be tried again", "turn ended", "delivery sent"]
    for line in [*accepted, *worked]:
        assert line["turn_id"] == "followed:e1", line
        assert line["trace_id"] == TRACE, line
    assert all(line["task_id"] for line in worked)
    assert worked[0]["task_id"] == "followed:e1"
    assert SAID not in worker.logs()
    assert SAID.encode() not in web.process.logs()
