"""Recorded conversations through four workers, one of them killed and one paused on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from inturn.cli.conversations import read_conversations
from inturn.cli.replay import Progress, replay
from inturn.client import Client
from inturn.persistence import PersistenceAdapter
from tests.integration.worker.conftest import StartWorker
from tests.nodes import ROOT

pytestmark = pytest.mark.process


@pytest.mark.timeout(300)
@pytest.mark.parametrize("store_kind", ["postgresql"])
@pytest.mark.parametrize(
    ("file", "latency"), [("examples/conversations.jsonl", "0.2"), ("../shared/data/dialogues.jsonl", "0.05")]
)
@pytest.mark.long
def test_nothing_is_lost_doubled_or_reordered_when_a_worker_is_killed_and_one_is_paused(
    file: str,
    latency: str,
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    fast: dict[str, str],
) -> None:
    path = ROOT / file
    if not path.exists():
        pytest.skip(f"there is no {Path(file).name} beside this checkout")
    lines = read_conversations(path)
    # Long enough for turns to be in hand when the signals come, and for the lease to lapse meanwhile.
    env = {**fast, "INTURN_AGENT": "examples.booking:agent", "INTURN_OFFLINE_LATENCY": latency}
    # Few slots for many conversations: no worker is ever idle.
    workers = [start_worker(concurrency=4, **env) for _ in range(4)]
    killed, paused = workers[:2]

    def on_progress(state: Progress) -> None:
        done = state.answered / state.lines
        if done > 0.2 and killed.container.status == "running":
            killed.kill("SIGKILL")
            paused.kill("SIGSTOP")
        if done > 0.7 and not resumed:
            paused.kill("SIGCONT")
            resumed.append(True)

    resumed: list[bool] = []
    report = replay(client, store, lines, on_progress=on_progress)

    assert report.ok, report.verdict.explain()
    assert killed.container.status == "exited"
    assert resumed, "the paused worker never came back: nothing was shown"
    assert "lease lost" in paused.logs(), "the paused worker had no turn in hand: nothing was shown"
    assert report.verdict.committed == report.turns
