"""The history checker finds every kind of violation when it is planted, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inturn.contract import Response, TurnResult
from inturn.persistence.memory import MemoryAdapter
from inturn.session.state import Message, SessionState, TurnRecord
from inturn.testing.history import EXAMPLES, Accepted, Verdict, check_history, check_store

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Run(NamedTuple):
    """What producers were told in one run, and what the store holds after it."""

    accepted: list[Accepted]
    messages: list[Message]
    results: list[TurnResult]

    def check(self) -> Verdict:
        return check_history(self.accepted, self.messages, self.results)

    def of(self, turn_id: str) -> list[Message]:
        return [message for message in self.messages if message.turn_id == turn_id]

    def change(self, old: Message, **update: Any) -> None:
        self.messages[self.messages.index(old)] = old.model_copy(update=update)

    def renumber(self) -> None:
        """Close every gap, keeping the order."""
        for session_id in {message.session_id for message in self.messages}:
            stored = [message for message in self.messages if message.session_id == session_id]
            for sequence, message in enumerate(sorted(stored, key=lambda m: m.sequence), 1):
                self.change(message, sequence=sequence)

    def append(self, turn_id: str, session_id: str = "a") -> None:
        """Write a turn at the end of a session."""
        count = sum(message.session_id == session_id for message in self.messages)
        began = seconds(1000 + count)
        self.messages.extend(turn(session_id, turn_id, count + 1, began, began + timedelta(seconds=1)))

    def reorder(self, *turn_ids: str) -> None:
        """Let a session's turns have been done in this order, without changing anything else."""
        steps = sorted((self.of(turn_id) for turn_id in turn_ids), key=lambda some: some[0].sequence)
        slots = [[(message.sequence, message.created_at) for message in some] for some in steps]
        for turn_id, slot in zip(turn_ids, slots, strict=True):
            for message, (sequence, created_at) in zip(self.of(turn_id), slot, strict=True):
                self.change(message, sequence=sequence, created_at=created_at)


def seconds(count: float) -> datetime:
    return START + timedelta(seconds=count)


def turn(
    session_id: str, turn_id: str, sequence: int, began: datetime, ended: datetime, **event: Any
) -> list[Message]:
    common: dict[str, Any] = {"session_id": session_id, "turn_id": turn_id}
    return [
        Message(role="user", content=f"say {turn_id}", sequence=sequence, created_at=began, **common),
        Message(
            role="assistant",
            content=f"did {turn_id}",
            sequence=sequence + 1,
            created_at=ended,
            event=event or None,
            **common,
        ),
    ]


def result(session_id: str, turn_id: str) -> TurnResult:
    response = Response(message=f"did {turn_id}", session_id=session_id, turn_id=turn_id)
    return TurnResult(kind="respond", session_id=session_id, turn_id=turn_id, response=response)


def correct(sessions: dict[str, int]) -> Run:
    """A run without fault: sessions side by side, each turn beginning just as the one before it ends."""
    run = Run([], [], [])
    for session_id, turns in sessions.items():
        for number in range(1, turns + 1):
            turn_id = f"{session_id}:{number}"
            run.accepted.append(Accepted(session_id, turn_id, number, seconds(0)))
            run.messages.extend(
                turn(session_id, turn_id, 2 * number - 1, seconds(number), seconds(number + 1))
            )
            run.results.append(result(session_id, turn_id))
    return run


@pytest.fixture
def run() -> Run:
    return correct({"a": 5, "b": 3})


def test_a_correct_history_has_no_violation(run: Run) -> None:
    verdict = run.check()

    assert verdict.ok
    assert verdict.violations == {}
    assert (verdict.accepted, verdict.committed) == (8, 8)


def test_the_verdict_is_one_line(run: Run) -> None:
    assert (
        "turns accepted 8, committed 8, lost 0, duplicated 0, out of order 0, overlapping 0"
        == str(run.check())
        == run.check().explain()
    )


def test_an_empty_run_is_correct() -> None:
    assert check_history([], []).ok


def test_the_order_of_what_is_given_does_not_matter(run: Run) -> None:
    assert check_history(reversed(run.accepted), reversed(run.messages), reversed(run.results)).ok


def test_an_event_delivered_again_counts_once_by_its_first_acceptance(run: Run) -> None:
    run.accepted.append(Accepted("a", "a:1", 99, seconds(50)))

    verdict = run.check()

    assert verdict.ok
    assert verdict.accepted == 8


def test_a_failed_turn_is_committed_and_no_violation(run: Run) -> None:
    reply = run.of("a:2")[1]
    run.change(reply, event={"failed": {"type": "ProviderError"}})
    run.results.clear()

    verdict = run.check()

    assert verdict.ok
    assert (verdict.committed, verdict.failed) == (8, 1)
    assert str(verdict).endswith("overlapping 0, failed 1")


def test_messages_that_belong_to_no_turn_are_no_violation(run: Run) -> None:
    run.messages.append(Message(session_id="a", role="system", content="hello", sequence=11))

    assert run.check().ok


def test_tool_calls_belong_to_their_turn(run: Run) -> None:
    _, reply = run.of("a:5")
    run.change(reply, sequence=11)
    run.messages.append(reply.model_copy(update={"role": "tool", "created_at": seconds(5.5)}))

    assert run.check().ok


def test_a_turn_without_messages_is_lost(run: Run) -> None:
    for message in run.of("a:3"):
        run.messages.remove(message)
    run.renumber()

    only(run, "lost", "a:3")


def test_the_last_turn_lost_is_noticed_too(run: Run) -> None:
    del run.messages[-2:]

    only(run, "lost", "b:3")


def test_a_turn_committed_twice_is_duplicated(run: Run) -> None:
    run.append("a:2")

    only(run, "duplicated", "a:2")


def test_a_turn_answered_twice_is_duplicated(run: Run) -> None:
    _, reply = run.of("b:3")
    run.messages.append(reply.model_copy(update={"sequence": reply.sequence + 1}))

    only(run, "duplicated", "b:3")


def test_a_turn_in_two_sessions_is_duplicated(run: Run) -> None:
    run.append("a:2", "b")

    only(run, "duplicated", "a:2")


def test_a_turn_in_another_session_only_is_lost(run: Run) -> None:
    run.append("b:3")
    del run.messages[14:16]

    only(run, "lost", "b:3")


def test_a_turn_committed_after_a_later_one_is_found_out_of_order(run: Run) -> None:
    run.reorder("a:1", "a:3", "a:2", "a:4", "a:5")

    only(run, "out_of_order", "a:3")


def test_each_turn_that_stands_before_an_earlier_one_counts_as_out_of_order(run: Run) -> None:
    run.reorder("a:2", "a:3", "a:4", "a:5", "a:1")

    only(run, "out_of_order", "a:2", "a:3", "a:4", "a:5")


def test_a_reply_before_its_message_is_out_of_order(run: Run) -> None:
    message, reply = run.of("a:2")
    run.change(message, sequence=reply.sequence)
    run.change(reply, sequence=message.sequence)

    only(run, "out_of_order", "a:2")


def test_turns_of_two_sessions_have_no_order_between_them() -> None:
    run = correct({"a": 1, "b": 1})
    run.accepted[:] = [Accepted("b", "b:1", 1, START), Accepted("a", "a:1", 2, START)]

    assert run.check().ok


def test_a_turn_that_began_before_the_one_before_it_ended_overlaps(run: Run) -> None:
    message, _ = run.of("a:3")
    run.change(message, created_at=message.created_at - timedelta(microseconds=1))

    only(run, "overlapping", "a:2", "a:3")


def test_a_long_turn_overlaps_with_every_turn_it_runs_into(run: Run) -> None:
    _, reply = run.of("a:2")
    run.change(reply, created_at=seconds(4.5))

    only(run, "overlapping", "a:2", "a:3", "a:4")


def test_turns_whose_messages_stand_between_each_others_overlap(run: Run) -> None:
    _, reply = run.of("a:2")
    message, _ = run.of("a:3")
    run.change(reply, sequence=message.sequence)
    run.change(message, sequence=reply.sequence)

    only(run, "overlapping", "a:2", "a:3")


def test_a_turn_with_half_of_its_messages_is_incomplete(run: Run) -> None:
    run.messages.remove(run.of("a:2")[1])
    run.renumber()

    only(run, "incomplete", "a:2")


def test_a_turn_nobody_was_told_yes_for_is_unknown(run: Run) -> None:
    run.append("a:77")

    only(run, "unknown", "a:77")


def test_a_missing_sequence_is_a_gap(run: Run) -> None:
    for message in run.of("b:3"):
        run.change(message, sequence=message.sequence + 1)

    only(run, "gaps", "b at 6 (message 5)")


def test_a_sequence_that_occurs_twice_is_a_gap(run: Run) -> None:
    for message in run.of("b:3"):
        run.change(message, sequence=message.sequence - 1)

    only(run, "gaps", "b at 4 (message 5)")


def test_sequences_that_do_not_start_at_one_are_a_gap(run: Run) -> None:
    for message in run.messages[10:]:
        run.change(message, sequence=message.sequence - 1)

    only(run, "gaps", "b at 0 (message 1)")


def test_a_result_with_another_text_than_the_history_is_mismatched(run: Run) -> None:
    run.change(run.of("a:2")[1], content="something else")

    only(run, "mismatched", "a:2")


def test_a_result_that_hides_a_failure_is_mismatched(run: Run) -> None:
    run.change(run.of("a:2")[1], event={"failed": True})

    only(run, "mismatched", "a:2")


def test_a_verdict_counts_all_offenders_and_names_some() -> None:
    run = correct({"a": EXAMPLES + 5})
    run.messages.clear()

    verdict = run.check()

    assert verdict.lost == EXAMPLES + 5
    assert tuple(f"a:{number}" for number in range(1, EXAMPLES + 1)) == verdict.examples["lost"]
    assert verdict.explain().endswith("a:20 and 5 more")


def only(run: Run, kind: str, *offenders: str) -> None:
    """The verdict must name these offenders of this kind, and no other violation."""
    verdict = run.check()
    assert {kind: len(offenders)} == verdict.violations
    assert set(offenders) == set(verdict.examples[kind])
    assert not verdict.ok


# The same against a store.


def fill(store: MemoryAdapter, run: Run) -> None:
    for session_id in dict.fromkeys(message.session_id for message in run.messages):
        session = SessionState(id=session_id)
        stored = [message for message in run.messages if message.session_id == session_id]
        for turn_id in dict.fromkeys(message.turn_id for message in stored):
            assert turn_id is not None
            session = store.commit(
                session,
                [message for message in stored if message.turn_id == turn_id],
                expected_version=session.version,
                turn=TurnRecord(session_id=session_id, turn_id=turn_id),
            ).session


def test_a_store_is_read_page_by_page() -> None:
    run = correct({"long": 1203, "short": 2})
    store = MemoryAdapter()
    fill(store, run)

    verdict = check_store(store, run.accepted, run.results)

    assert verdict.ok
    assert verdict.committed == 1205


def test_what_the_store_lacks_is_lost() -> None:
    run = correct({"a": 3, "b": 2})
    store = MemoryAdapter()
    fill(store, run._replace(messages=run.messages[:8]))

    verdict = check_store(store, run.accepted)

    assert verdict.violations == {"lost": 1}
    assert verdict.examples["lost"] == ("b:2",)


# Any correct history passes, and any one thing changed in it does not.


@st.composite
def histories(draw: st.DrawFn) -> Run:
    run = Run([], [], [])
    for session_id in draw(st.lists(st.sampled_from("abcd"), min_size=1, unique=True)):
        now = draw(st.integers(0, 50))
        sequence = 1
        for number in range(1, draw(st.integers(2, 6)) + 1):
            turn_id = f"{session_id}:{number}"
            began = now + draw(st.integers(0, 3))
            now = began + draw(st.integers(1, 3))
            run.accepted.append(Accepted(session_id, turn_id, number, seconds(began - 1)))
            run.messages.extend(turn(session_id, turn_id, sequence, seconds(began), seconds(now)))
            run.results.append(result(session_id, turn_id))
            sequence += 2
    # A store may give them in any order.
    shuffled = st.permutations(run.accepted), st.permutations(run.messages), st.permutations(run.results)
    return Run(draw(shuffled[0]), draw(shuffled[1]), draw(shuffled[2]))


def lose(run: Run, one: str, other: str) -> None:
    for message in run.of(one):
        run.messages.remove(message)
    run.renumber()


def drop_reply(run: Run, one: str, other: str) -> None:
    run.messages.remove(next(message for message in run.of(one) if message.role == "assistant"))


def commit_again(run: Run, one: str, other: str) -> None:
    run.append(one, one[0])


def swap(run: Run, one: str, other: str) -> None:
    for mine, theirs in zip(in_order(run, one), in_order(run, other), strict=True):
        run.change(mine, sequence=theirs.sequence, created_at=theirs.created_at)
        run.change(theirs, sequence=mine.sequence, created_at=mine.created_at)


def interleave(run: Run, one: str, other: str) -> None:
    mine, theirs = in_order(run, one)[1], in_order(run, other)[0]
    run.change(mine, sequence=theirs.sequence)
    run.change(theirs, sequence=mine.sequence)


def run_into(run: Run, one: str, other: str) -> None:
    reply = in_order(run, one)[1]
    run.change(reply, created_at=in_order(run, other)[1].created_at)


def skip_a_sequence(run: Run, one: str, other: str) -> None:
    start = in_order(run, one)[0].sequence
    for message in list(run.messages):
        if message.session_id == one[0] and message.sequence >= start:
            run.change(message, sequence=message.sequence + 1)


def accept_without_commit(run: Run, one: str, other: str) -> None:
    run.accepted.append(Accepted(one[0], f"{one[0]}:new", 99, START))


def forget_acceptance(run: Run, one: str, other: str) -> None:
    run.accepted.remove(next(record for record in run.accepted if record.turn_id == one))


def accept_in_another_order(run: Run, one: str, other: str) -> None:
    numbers = {record.turn_id: record.order for record in run.accepted}
    for index, record in enumerate(run.accepted):
        if record.turn_id in (one, other):
            wanted = other if record.turn_id == one else one
            run.accepted[index] = record._replace(order=numbers[wanted])


def tell_another_reply(run: Run, one: str, other: str) -> None:
    run.results.append(result(one[0], one).model_copy(update={"state": "failed"}))


def in_order(run: Run, turn_id: str) -> list[Message]:
    return sorted(run.of(turn_id), key=lambda message: message.sequence)


MUTATIONS: list[Callable[[Run, str, str], None]] = [
    lose,
    drop_reply,
    commit_again,
    swap,
    interleave,
    run_into,
    skip_a_sequence,
    accept_without_commit,
    forget_acceptance,
    accept_in_another_order,
    tell_another_reply,
]


@given(histories())
def test_every_correct_history_passes(run: Run) -> None:
    assert run.check().ok, run.check().explain()


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
@given(run=histories(), data=st.data())
def test_no_history_passes_with_one_thing_changed(
    mutate: Callable[[Run, str, str], None], run: Run, data: st.DataObject
) -> None:
    session_id = data.draw(st.sampled_from(sorted({record.session_id for record in run.accepted})))
    turns = sum(record.session_id == session_id for record in run.accepted)
    earlier = data.draw(st.integers(1, turns - 1))
    later = data.draw(st.integers(earlier + 1, turns))

    mutate(run, f"{session_id}:{earlier}", f"{session_id}:{later}")

    assert not run.check().ok
