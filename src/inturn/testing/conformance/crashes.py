"""The kit on processes: writers in several, a writer killed in mid-commit, clocks that disagree."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import ClassVar

from inturn.errors import SessionConflictError
from inturn.persistence.adapter import MessageQuery, PersistenceAdapter, SessionQuery
from inturn.session import state
from inturn.session.state import Message, SessionState
from inturn.testing.conformance.base import Reopen, loaded, message, messages, saved, turn, unique
from inturn.testing.conformance.listings import pages
from inturn.testing.conformance.processes import ProcessConformance, Tell, processes

WRITERS = 3
ROUNDS = 15
PER_COMMIT = 8
"""Messages of one commit by a writer that will be killed: the more, the longer the store is half way."""


class CrashConformance(ProcessConformance):
    """What happens between processes, and to them."""

    kills: ClassVar[int] = 8
    """How many writers are killed."""

    def test_writers_of_several_processes_lose_nothing(
        self, adapter: PersistenceAdapter, elsewhere: Reopen
    ) -> None:
        """`commit`: one writer wins each version, and a turn that several take is taken once."""
        session_id = saved(adapter, data={"count": 0}).id
        with processes(elsewhere, _contend, [(session_id, number) for number in range(WRITERS)]) as writers:
            told = [turn_id for writer in writers for turn_id in writer.everything_told()]
        found = loaded(adapter, session_id)
        expected = (WRITERS + 1) * ROUNDS
        assert len(told) == len(set(told)) == expected
        assert found.session.data == {"count": expected}
        assert (found.session.version, found.session.message_count) == (expected + 1, expected)
        assert [item.sequence for item in found.messages] == list(range(1, expected + 1))
        assert {item.content for item in found.messages} == set(told)
        for number in range(WRITERS):
            mine = [item.content for item in found.messages if f":{number}/" in item.content]
            assert mine == [f"{session_id}:{number}/{step}" for step in range(ROUNDS)]

    def test_a_writer_killed_in_mid_commit_leaves_all_of_it_or_nothing(
        self, adapter: PersistenceAdapter, elsewhere: Reopen
    ) -> None:
        """`commit`: nobody sees a part of it, what was acknowledged stays, the turn ID settles the rest.

        The turn in hand is taken again: it is there once, whether or not the dead had got it through.
        """
        randomly = random.Random(1)
        for _ in range(self.kills):
            session = saved(adapter, data={"last": 1})
            with processes(elsewhere, _write_on, [(session.id,)]) as (writer,):
                acknowledged = [writer.told() for _ in range(randomly.randrange(1, 6))][-1]
                time.sleep(randomly.uniform(0, 0.03))  # not to wait for anything: any moment will do
                acknowledged = [acknowledged, *writer.kill()][-1]
            # The store may still be at work for the dead: anything may be compared within one load only.
            listed = self._listed(adapter, session.id)
            found = loaded(adapter, session.id, f"{session.id}:{acknowledged + 1}")
            assert found.session.version in (acknowledged, acknowledged + 1)
            assert (found.turn is not None) == (found.session.version > acknowledged)
            self._check_whole(found.session, found.messages)
            assert listed == found.messages[: len(listed)]
            for number in (acknowledged + 1, acknowledged + 2):
                _take_turn(adapter, session.id, number)
            found = loaded(adapter, session.id)
            assert found.session.version == acknowledged + 2
            self._check_whole(found.session, found.messages)
            assert self._listed(adapter, session.id) == found.messages

    def _listed(self, adapter: PersistenceAdapter, session_id: str) -> list[Message]:
        query = MessageQuery(session_id=session_id)
        return [item for page in pages(adapter.find_messages, query) for item in page]

    def _check_whole(self, session: SessionState, every: list[Message]) -> None:
        turns = session.version - 1
        assert session.data == {"last": session.version}
        assert session.message_count == turns * PER_COMMIT
        assert [item.sequence for item in every] == list(range(1, session.message_count + 1))
        assert [item.content for item in every] == [str(n) for n in range(1, PER_COMMIT + 1)] * turns

    def test_writers_whose_clocks_disagree_lose_nothing(
        self, adapter: PersistenceAdapter, elsewhere: Reopen
    ) -> None:
        """Order is a matter of versions and sequences: no clock can hide or overwrite what was written."""
        session_id = saved(adapter, user_id=unique("user")).id
        hours = [1, 0, -1]  # the one ahead begins, so that the others would turn time back
        before = state.utcnow()
        with processes(elsewhere, _write_with_a_clock, [(session_id, each) for each in hours]) as writers:
            told = sorted(each for writer in writers for each in writer.everything_told())
        expected = len(hours) * ROUNDS
        assert [version for version, _ in told] == list(range(2, expected + 2))
        times = [updated_at for _, updated_at in told]
        assert times == sorted(times)
        found = loaded(adapter, session_id)
        assert found.session.updated_at == times[-1] >= before + timedelta(hours=1)
        assert [item.sequence for item in found.messages] == list(range(1, expected + 1))
        assert found.session.last_message_at == found.messages[-1].created_at
        for each in hours:
            mine = [item.content for item in found.messages if item.content.startswith(f"{each}/")]
            assert mine == [f"{each}/{step}" for step in range(ROUNDS)]
        recent = SessionQuery(user_id=found.session.user_id, newer_than=before + timedelta(minutes=59))
        assert adapter.find_sessions(recent).items == [found.session]


def _contend(adapter: PersistenceAdapter, tell: Tell, session_id: str, number: int) -> None:
    for step in range(ROUNDS):
        for turn_id in (f"{session_id}:{number}/{step}", f"{session_id}:everybody's/{step}"):
            if _take_once(adapter, session_id, turn_id):
                tell(turn_id)


def _take_once(adapter: PersistenceAdapter, session_id: str, turn_id: str) -> bool:
    while True:
        session, _, known = loaded(adapter, session_id, turn_id)
        if known is not None:
            return False
        session.data["count"] += 1
        try:
            committed = adapter.commit(
                session,
                [message(session_id, turn_id)],
                expected_version=session.version,
                turn=turn(session_id, turn_id),
            )
        except SessionConflictError:
            continue
        return not committed.repeated


def _write_on(adapter: PersistenceAdapter, tell: Tell, session_id: str) -> None:
    for number in itertools.count(2):
        tell(_take_turn(adapter, session_id, number))


def _take_turn(adapter: PersistenceAdapter, session_id: str, number: int) -> int:
    """Take the turn that makes version `number`, unless it was taken; gives the version that is stored."""
    session = loaded(adapter, session_id).session
    session.data["last"] = number
    committed = adapter.commit(
        session,
        messages(session_id, PER_COMMIT),
        expected_version=session.version,
        turn=turn(session_id, f"{session_id}:{number}"),
    )
    return number if committed.repeated else committed.session.version


def _write_with_a_clock(adapter: PersistenceAdapter, tell: Tell, session_id: str, hours: int) -> None:
    now = _shift_clock(timedelta(hours=hours))
    for step in range(ROUNDS):
        while True:
            session = loaded(adapter, session_id).session
            said = Message(session_id=session_id, role="user", content=f"{hours}/{step}", created_at=now())
            try:
                committed = adapter.commit(session, [said], expected_version=session.version)
            except SessionConflictError:
                continue
            break
        tell((committed.session.version, committed.session.updated_at))


def _shift_clock(by: timedelta) -> Callable[[], datetime]:
    """Change what every module of this process takes for the time."""
    real = state.utcnow

    def shifted() -> datetime:
        return real() + by

    for module in list(sys.modules.values()):
        if getattr(module, "utcnow", None) is real:
            module.utcnow = shifted  # type: ignore[attr-defined]
    return shifted
