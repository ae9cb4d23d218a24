"""inturn itself: the real worker, and an agent without routes whose model waits and says a fixed text."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator

from benchmarks.peers import work
from inturn.agent import Agent
from inturn.agent.provider import ModelReply, ModelRequest, in_pieces
from inturn.client import Client
from inturn.persistence import open_adapter
from inturn.session.state import create_messages, create_session
from inturn.settings import load_settings


class Model:
    """Answers after the time that the plan gives it."""

    def __init__(self) -> None:
        plan = os.environ.get("BENCH_PLAN")
        self._latency = work.Plan(*json.loads(plan)).latency if plan else 0.0

    def generate(self, request: ModelRequest) -> ModelReply:
        work.gate.wait()
        if self._latency:
            time.sleep(self._latency)
        number = int(request.messages[-1].content[:5])
        return ModelReply({"message": work.content("assistant", number)})

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        return in_pieces(self.generate(request))


agent = Agent("benchmark", provider=Model())


def setup() -> None:
    """Make the sessions, as long as those of the peers are."""
    lines = [
        {"role": role, "content": work.content(role, number)}
        for number in range(work.HISTORY // 2)
        for role in ("user", "assistant")
    ]
    with open_adapter(load_settings().database_url.get_secret_value()) as adapter:
        adapter.initialize()
        for session_id in sorted({each.session_id for each in work.planned()}):
            session = create_session(session_id, data=work.first_state(), agent_name="benchmark")
            adapter.commit(session, create_messages(session, lines), expected_version=0)


def enqueue(turns: list[work.Planned]) -> None:
    with Client(load_settings()) as client:
        for session_id, number, _ in turns:
            client.respond(session_id, work.content("user", number), turn_id=str(number))
