"""Recorded conversations through the queue, with one agent that is made of all recorded services."""

from __future__ import annotations

from collections import defaultdict

import pytest

from inturn.cli.conversations import Line, read_conversations
from inturn.cli.replay import replay
from inturn.client import Client
from inturn.contract import TurnResult
from inturn.ids import create_turn_id
from inturn.persistence import PersistenceAdapter, PersistenceManager
from tests.integration.worker.conftest import StartWorker
from tests.services import RECORDED, Course, Named, conversations, needs_recordings

pytestmark = [pytest.mark.process, needs_recordings]


@pytest.mark.timeout(300)
@pytest.mark.long
def test_every_turn_among_those_of_all_conversations_comes_to_what_was_recorded(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    sent: dict[str, list[Line]] = defaultdict(list)
    for line in read_conversations(RECORDED / "dialogues.jsonl"):
        sent[line.session_id].append(line)
    rounds = max(map(len, sent.values()))
    # First the first message of each conversation, then the second: all of them are held at the same time.
    lines = [some[number] for number in range(rounds) for some in sent.values() if number < len(some)]

    for _ in range(2):
        start_worker(concurrency=8, INTURN_AGENT="tests.services:agent")
    report = replay(client, store, lines)

    assert report.ok, report.verdict.explain()
    assert (len(sent), report.verdict.committed) == (400, len(lines))
    for conversation in conversations():
        session_id, course = conversation[0].session_id, Course(Named(by_service=True))
        rows = PersistenceManager(store).find_messages_by_session_id(session_id, limit=None)
        for turn, line in zip(conversation, sent[session_id], strict=True):
            turn_id = create_turn_id(session_id, line.turn_id)
            loaded = store.load(session_id, turn_id=turn_id)
            assert loaded is not None
            assert loaded.turn is not None
            result = TurnResult.model_validate(loaded.turn.result)
            tools = sum(row.role == "tool" and row.turn_id == turn_id for row in rows)
            wrong = course.wrong(turn, result.response, rounds=tools)
            assert wrong == {}, f"{session_id}: {turn.text}"
        after = store.load(session_id)
        assert after is not None
        assert (after.session.data, after.session.journal) == (result.response.data, {})
