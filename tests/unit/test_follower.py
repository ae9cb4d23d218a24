"""What a reader gets of a turn's stream, whatever became of the stream and wherever the reader comes in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inturn.contract import Piece
from inturn.errors import InvalidInputError
from inturn.turns import Entry, Follower

TEXT = st.text("ab ", max_size=3)


@st.composite
def streams(draw: st.DrawFn) -> list[Entry]:
    """What owners, one after the other, have written: each begins anew, and the last one ends."""
    entries: list[Entry] = []
    fence = 0
    for _ in range(draw(st.integers(1, 3))):
        fence += draw(st.integers(1, 5))
        texts = draw(st.lists(st.tuples(TEXT, st.booleans()), min_size=1, max_size=5))
        for number, (text, anew) in enumerate(texts, 1):
            entries.append(Entry(fence, number, text, restarts=anew or number == 1, ends=False))
        if draw(st.booleans()):  # it ended, and perhaps died before its result was stored
            entries[-1] = entries[-1]._replace(ends=True)
    entries[-1] = entries[-1]._replace(ends=True)
    return entries


def told(entries: Iterable[Entry]) -> str:
    """The reply that a stream without holes tells."""
    text = ""
    for entry in entries:
        text = entry.text if entry.restarts else text + entry.text
    return text


def read(entries: Iterable[Entry], message: str, after: str = "") -> list[Piece]:
    follower = Follower(after)
    pieces = [piece for entry in entries if (piece := follower.take(entry)) is not None]
    last = follower.close(message)
    return pieces if last is None else [*pieces, last]


def joined(pieces: Iterable[Piece]) -> str:
    text = ""
    for piece in pieces:
        text = piece.text if piece.restarts else text + piece.text
    return text


@given(streams())
def test_the_pieces_since_the_last_restart_are_the_reply(entries: list[Entry]) -> None:
    pieces = read(entries, told(entries))

    assert joined(pieces) == told(entries)
    assert not pieces or not pieces[0].restarts, "nothing was shown that could be void"
    assert all(piece.id != "end" for piece in pieces), "the stream had it all"


@given(streams())
def test_a_reader_resumes_exactly_behind_any_piece(entries: list[Entry]) -> None:
    pieces = read(entries, told(entries))

    for number, piece in enumerate(pieces, 1):
        assert read(entries, told(entries), after=piece.id) == pieces[number:]


@given(streams(), st.data())
def test_whatever_was_lost_the_reply_is_whole_in_the_end(entries: list[Entry], data: st.DataObject) -> None:
    left = [entry for entry in entries if data.draw(st.booleans(), label=entry.id)]

    assert joined(read(left, told(entries))) == told(entries)


@given(streams(), st.data())
def test_what_was_lost_between_two_readings_is_made_up_for(entries: list[Entry], data: st.DataObject) -> None:
    before = read(entries[: data.draw(st.integers(0, len(entries)))], "")
    before = [piece for piece in before if piece.id != "end"]
    left = [entry for entry in entries if data.draw(st.booleans(), label=entry.id)]

    after = read(left, told(entries), after=before[-1].id if before else "")

    assert joined([*before, *after]) == told(entries)


@given(streams(), TEXT)
def test_the_result_is_right_where_the_stream_tells_another_reply(entries: list[Entry], reply: str) -> None:
    assert joined(read(entries, reply)) == reply


def test_nothing_with_a_hole_is_shown() -> None:
    entries = [Entry(1, 2, "table", restarts=False, ends=False), Entry(1, 3, "?", restarts=False, ends=True)]

    assert read(entries, "Which table?") == [Piece("Which table?", id="end")]


def test_after_the_whole_reply_nothing_comes() -> None:
    assert read([], "Which table?") == [Piece("Which table?", id="end")]
    assert read([], "Which table?", after="end") == []
    assert read([Entry(1, 1, "Which", restarts=True, ends=False)], "Which table?", after="end") == []


def test_who_names_a_piece_that_is_not_there_gets_the_whole_reply() -> None:
    entries = [Entry(1, 1, "Which ", restarts=True, ends=False), Entry(1, 2, "table?", False, ends=True)]

    assert read(entries, "Which table?", after="1-9") == [Piece("Which table?", restarts=True, id="end")]


@pytest.mark.parametrize("after", ["1", "1-", "-1", "1-2-3", "a-b", "1-2 ", "٣-١", "1" * 40 + "-1", "END"])
def test_an_id_that_is_none_is_refused(after: str) -> None:
    with pytest.raises(InvalidInputError, match="ID of a piece"):
        Follower(after)


def test_the_id_of_an_entry_orders_by_owner_and_then_by_number() -> None:
    ids: Sequence[tuple[int, int]] = [(1, 1), (1, 2), (2, 1), (10, 1), (10, 10)]
    entries = [Entry(fence, number, "x", restarts=True, ends=False) for fence, number in ids]

    for one, other in itertools.pairwise(entries):
        assert Follower(one.id).take(other) is not None
        assert Follower(other.id).take(one) is None
