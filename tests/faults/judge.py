"""Judge: reads the stores, the logs and the journal of a run that has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from inturn.contract import TurnResult
from inturn.persistence import MessageQuery
from inturn.persistence.adapter import MAX_PAGE
from inturn.session.state import Message
from tests.faults.control import POINTS
from tests.faults.producer import read_log
from tests.faults.verdict import (
    Recovery,
    count_violations,
    judge_deliveries,
    judge_history,
    measure_recovery,
)

if TYPE_CHECKING:
    from tests.faults.run import Run


class Judge:
    """What came of a run whose turns have the `results`."""

    def __init__(self, run: Run, results: Sequence[TurnResult]) -> None:
        self._run = run
        self._results = results

    def judge(self) -> None:
        """Fill the run's outcome."""
        run, outcome, results = self._run, self._run.outcome, self._results
        journal = list(run.control.read())
        accepted = run.accepted()
        messages = [each for session_id in run.load.session_ids() for each in self._messages(session_id)]
        verdict, stale = judge_history(accepted, messages, results, journal)
        ended = {view.turn_id: view.state for view in run.house.out.overview() if view.state != "sent"}
        replies = [
            (message.session_id, message.turn_id or "", message.content)
            for message in messages
            if message.role == "assistant" and run.load.is_delivered(message.session_id)
        ]
        taken = [(sent.to, sent.text) for sent in run.house.receiver.taken]
        deliveries = judge_deliveries(replies, taken, ended)
        outcome.accepted, outcome.committed, outcome.failed = (
            verdict.accepted,
            verdict.committed,
            verdict.failed,
        )
        outcome.violations, outcome.examples = count_violations(verdict, stale, run.unanswered, deliveries)
        recovery = measure_recovery(journal, run.deaths, run.outages)
        everything = [each for some in recovery.values() for each in (*some.times, *some.waited_for_server)]
        killed = recovery.get("killed", Recovery())
        outcome.recovery = {
            "killed": Recovery.figures(killed.times),
            "killed, while a server was away": Recovery.figures(killed.waited_for_server),
            "cold shutdown": Recovery.figures(recovery.get("cold shutdown", Recovery()).times),
            "paused": Recovery.figures(recovery.get("paused", Recovery()).times),
            "all": Recovery.figures(everything),
        }
        outcome.deliveries = {
            "expected": deliveries.expected,
            "sent once": deliveries.once,
            "marked unknown": deliveries.unknown,
            "marked unknown, and had arrived": deliveries.unknown_and_arrived,
            "failed": deliveries.failed,
        }
        self._count(journal)

    def _messages(self, session_id: str) -> Iterator[Message]:
        cursor: str | None = None
        while True:
            page = self._run.house.store.find_messages(
                MessageQuery(session_id=session_id, cursor=cursor, limit=MAX_PAGE)
            )
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return

    def _count(self, journal: list[list[Any]]) -> None:
        run, outcome = self._run, self._run.outcome
        events = Counter(line[0] for line in journal)
        outcome.faults["clock steps"] = events["step"]
        outcome.counts["turns taken up"] = events["begin"]
        outcome.counts["commits tried"] = events["commit"]
        outcome.counts["turns of release 2 left alone by release 1"] = events["newer"]
        for line in journal:
            if line[0] == "sent again":
                outcome.counts[f"events sent again after {line[3]}"] += 1
        for index in range(run.options.producers):
            for *_, release in read_log(run.directory, index):
                outcome.counts[f"turns of release {release}"] += 1
        outcome.points = {point: outcome.points.get(point, 0) for point in POINTS}
        outcome.restarts = {name: process.restarts for name, process in run.fleet.processes.items()}
