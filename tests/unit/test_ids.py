"""Identifiers: what may be one, and that no two meet."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inturn.errors import InvalidInputError
from inturn.ids import MAX_ID_LENGTH, check_id, create_message_id, create_session_id, create_turn_id


def _is_id(text: str) -> bool:
    try:
        return check_id(text) == text
    except InvalidInputError:
        return False


ids = st.text(min_size=1, max_size=40).filter(_is_id)


@pytest.mark.parametrize(
    "value",
    ["user-123", "C02AB:1712.55", "+49 151 2345", "日本語", "😀", "a/b?c=d", " ", "x" * MAX_ID_LENGTH],
)
def test_ordinary_strings_are_ids(value: str) -> None:
    assert check_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        {"$ne": None},
        ["a"],
        None,
        5,
        b"bytes",
        "",
        "x" * (MAX_ID_LENGTH + 1),
        "nul\x00",
        "line\nbreak",
        "\x1b[31m",
        "del\x7f",
        "c1\x85",
        "separator\u2028",
        "\ud800",
    ],
)
def test_everything_else_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError):
        check_id(value)


def test_the_error_names_what_kind_of_id_was_wrong() -> None:
    with pytest.raises(InvalidInputError, match="a user ID must be a string, not dict"):
        check_id({}, "user ID")


@pytest.mark.parametrize("create", [create_session_id, create_message_id])
def test_new_ids_differ_and_are_ids(create: Any) -> None:
    made = {create() for _ in range(1000)}

    assert len(made) == 1000
    assert all(map(_is_id, made))


def test_new_session_ids_sort_by_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for milliseconds in (1, 999, 1_700_000_000_000, 1_700_000_000_001, 4_000_000_000_000):
        monkeypatch.setattr("time.time_ns", lambda now=milliseconds: now * 1_000_000)
        made.append(create_session_id())

    assert sorted(made) == made


@given(ids, ids)
def test_a_made_turn_id_passes_through_unchanged(session_id: str, key: str) -> None:
    made = create_turn_id(session_id, key)

    assert create_turn_id(session_id, made) == made


@given(ids, ids, ids, ids)
def test_two_sessions_never_share_a_turn_id(one: str, key: str, other: str, other_key: str) -> None:
    if one != other:
        assert create_turn_id(one, key) != create_turn_id(other, other_key)


def test_a_colon_in_a_session_id_names_no_other_session() -> None:
    assert create_turn_id("a:b", "c") == "a%3Ab:c"
    assert create_turn_id("a", "b:c") == "a:b:c"


def test_turn_ids_without_a_key_differ() -> None:
    assert create_turn_id("s") != create_turn_id("s")


@pytest.mark.parametrize("key", ["", "s:", "nul\x00", "x" * 256, 5, {"$ne": None}])
def test_a_key_that_is_no_id_is_refused(key: Any) -> None:
    with pytest.raises(InvalidInputError):
        create_turn_id("s", key)
