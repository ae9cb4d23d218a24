"""The history checker and turns that were merged: each has its message, and one reply is all of theirs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inturn.session.state import Message
from inturn.testing.history import Accepted
from tests.unit.test_history_checker import Run, correct, only, result, seconds, turn


def merge(run: Run, into: str, *others: str) -> None:
    """Let these turns have been answered with the turn `into`, which stands before them."""
    said, reply = run.of(into)
    rows = [said]
    for turn_id in others:
        message, dropped = run.of(turn_id)
        run.messages.remove(dropped)
        run.change(message, event={"merged_into": into}, created_at=said.created_at)
        rows += run.of(turn_id)
        run.results.remove(next(each for each in run.results if each.turn_id == turn_id))
        told = result(turn_id[0], into).model_copy(update={"turn_id": turn_id})
        run.results.append(told)
    last = max(row.sequence for row in rows)
    run.change(reply, sequence=last + 0.5)
    renumber(run)


def renumber(run: Run) -> None:
    for session_id in {message.session_id for message in run.messages}:
        stored = [message for message in run.messages if message.session_id == session_id]
        for sequence, message in enumerate(sorted(stored, key=lambda each: each.sequence), 1):
            run.change(message, sequence=sequence)


@pytest.fixture
def run() -> Run:
    """Of five turns of a session the second, third and fourth were one."""
    run = correct({"a": 5, "b": 3})
    merge(run, "a:2", "a:3", "a:4")
    return run


def message_of(run: Run, turn_id: str) -> Message:
    return next(message for message in run.of(turn_id) if message.role == "user")


def test_turns_that_were_merged_are_no_violation(run: Run) -> None:
    assert run.check().ok, run.check().explain()
    assert run.check().committed == 8


def test_a_message_that_was_dropped_is_lost(run: Run) -> None:
    run.messages.remove(message_of(run, "a:3"))
    renumber(run)

    only(run, "lost", "a:3")


def test_a_merged_turn_without_a_reply_is_incomplete(run: Run) -> None:
    run.messages.remove(next(each for each in run.of("a:2") if each.role == "assistant"))
    renumber(run)

    only(run, "incomplete", "a:2", "a:3", "a:4")


def test_a_turn_that_is_merged_into_one_that_was_never_there_is_incomplete(run: Run) -> None:
    run.change(message_of(run, "a:4"), event={"merged_into": "a:9"})

    assert run.check().examples["incomplete"] == ("a:4",)


def test_a_message_behind_the_reply_is_out_of_order(run: Run) -> None:
    message, reply = message_of(run, "a:4"), next(m for m in run.of("a:2") if m.role == "assistant")
    run.change(message, sequence=reply.sequence)
    run.change(reply, sequence=message.sequence)

    assert run.check().examples["out_of_order"] == ("a:4",)


def test_a_merged_message_that_was_answered_again_is_duplicated(run: Run) -> None:
    run.append("a:3")

    assert "a:3" in run.check().examples["duplicated"]


def test_merged_messages_in_another_order_than_they_came_are_out_of_order(run: Run) -> None:
    one, other = message_of(run, "a:3"), message_of(run, "a:4")
    run.change(one, sequence=other.sequence)
    run.change(other, sequence=one.sequence)

    only(run, "out_of_order", "a:4")


def test_a_turn_between_merged_ones_overlaps(run: Run) -> None:
    run.accepted.append(Accepted("a", "a:x", 3, seconds(0)))
    run.messages.extend(turn("a", "a:x", 0, seconds(3), seconds(3.5)))
    place = message_of(run, "a:3").sequence
    for number, message in enumerate(run.of("a:x")):
        run.change(message, sequence=place + (number + 1) / 3)
    renumber(run)

    assert {"a:2", "a:x"} <= set(run.check().examples["overlapping"])


def test_a_turn_that_was_answered_behind_the_next_one_overlaps() -> None:
    run = correct({"a": 3})
    message, reply = run.of("a:1")
    run.messages.remove(reply)
    run.change(message, event={"merged_into": "a:3"})
    run.results.clear()
    renumber(run)

    only(run, "overlapping", "a:2", "a:3")


def test_the_result_of_a_merged_turn_must_be_the_one_reply(run: Run) -> None:
    run.results.append(result("a", "a:3"))

    only(run, "mismatched", "a:3")


def test_a_failed_reply_counts_for_each_turn_that_was_merged(run: Run) -> None:
    reply = next(each for each in run.of("a:2") if each.role == "assistant")
    run.change(reply, event={"failed": "ProviderError"})
    run.results.clear()

    verdict = run.check()
    assert verdict.ok
    assert verdict.failed == 3


@settings(deadline=None)
@given(data=st.data())
def test_every_correct_history_with_merged_turns_passes(data: st.DataObject) -> None:
    run = correct({"a": 8})
    place = 1
    while place < 8:
        size = data.draw(st.integers(1, 4))
        merge(run, f"a:{place}", *(f"a:{n}" for n in range(place + 1, min(place + size, 9))))
        place += size

    assert run.check().ok, run.check().explain()
