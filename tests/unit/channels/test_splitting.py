"""split_text: nothing lost, nothing too large, nothing out of order, and cut where a reader would pause."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inturn.channels import split_text
from inturn.errors import InvalidInputError

Size = Callable[[str], int]


def utf_16(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def escaped(text: str) -> int:
    return len(text) + 4 * text.count("&")


characters = st.sampled_from(
    [*"ab .,;!?\n\t\"')&。」、é", "\u0301", "\u200d", "👩", "🏽", "🇩", "🇪", "\ufe0f", "\xa0"]
)
texts = st.one_of(st.text(characters, max_size=200), st.text(max_size=200))
sizes = st.sampled_from([len, utf_16, escaped])


@given(texts, st.integers(8, 60), sizes)
@example('He said "Hi." Then he left.', 12, len)
@example("你好。」再见", 8, len)
@example("&" * 20, 8, escaped)
def test_nothing_is_lost_and_every_part_fits(text: str, most: int, size: Size) -> None:
    parts = split_text(text, most, size)

    rest = text
    for part in parts:
        assert part
        assert part == part.strip()
        assert size(part) <= most
        before, found, rest = rest.partition(part)
        assert found, "a part is not in the text, or out of order"
        assert not before.strip(), "something was lost between two parts"
    assert not rest.strip(), "something was lost at the end"


@given(texts, st.integers(8, 60))
def test_a_text_that_fits_stays_whole(text: str, more: int) -> None:
    wanted = [text.strip()] if text.strip() else []

    assert split_text(text, len(text) + more) == wanted


@given(
    st.integers(1, 6),
    st.lists(st.sampled_from(["e\u0301", "👩🏽\u200d💻", "🇩🇪", "한", "☎\ufe0f"]), max_size=40),
)
def test_what_a_reader_sees_as_one_character_is_not_cut(more: int, seen: list[str]) -> None:
    most = 4 + more

    for part in split_text("".join(seen), most):
        assert "".join(each for each in split_characters(part)) == part


def split_characters(text: str) -> list[str]:
    """The whole ones of the test above that a text is made of; any rest is left out."""
    found = []
    while text:
        for each in ("e\u0301", "👩🏽\u200d💻", "🇩🇪", "한", "☎\ufe0f"):
            if text.startswith(each):
                found.append(each)
                text = text[len(each) :]
                break
        else:
            break
    return found


@pytest.mark.parametrize(
    ("text", "most", "parts"),
    [
        (
            "One paragraph.\n\nAnother one,\nof two lines.",
            30,
            ["One paragraph.", "Another one,\nof two lines."],
        ),
        ("First line here\nsecond line here", 20, ["First line here", "second line here"]),
        ("One sentence. Another, longer one. End.", 24, ["One sentence.", "Another, longer one.", "End."]),
        ('He said "Hi there." Then he left.', 24, ['He said "Hi there."', "Then he left."]),
        ("It has a clause, and then it goes on", 24, ["It has a clause,", "and then it goes on"]),
        ("words that have no pause at all", 16, ["words that have", "no pause at all"]),
        ("你好。我是机器人，欢迎。再见", 8, ["你好。", "我是机器人，", "欢迎。再见"]),
        ("aaaaaaaaaaaaaaaaaaaa", 8, ["aaaaaaaa", "aaaaaaaa", "aaaa"]),
        ("a bbbbbbbbbbbbbbbbbbbb", 12, ["a bbbbbbbbbb", "bbbbbbbbbb"]),
        ("   ", 5, []),
        ("", 5, []),
    ],
)
def test_a_part_ends_where_a_reader_would_pause(text: str, most: int, parts: list[str]) -> None:
    assert split_text(text, most) == parts


def test_a_character_that_is_too_large_alone_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(InvalidInputError, match="a size of 1, and one character alone has 2"):
        split_text("a👩", 1, utf_16)


def test_characters_that_go_on_for_ever_are_cut_all_the_same() -> None:
    zalgo = "e" + "\u0301" * 500

    assert "".join(split_text(zalgo, 100)) == zalgo
    assert max(map(len, split_text(zalgo, 100))) <= 100


def test_a_long_text_takes_no_more_measuring_than_it_has_parts() -> None:
    measured = 0

    def size(text: str) -> int:
        nonlocal measured
        measured += len(text)
        return len(text)

    parts = split_text("word " * 20_000, 160, size)

    assert len(parts) == 625
    assert measured < 100_000 * 30
