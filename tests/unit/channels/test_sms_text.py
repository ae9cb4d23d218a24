"""Text messages: how much a text is as SMS, and the parts that a reply is sent in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inturn.channels.sms import SmsChannel
from inturn.channels.sms_text import count_characters, count_segments, is_gsm_7
from inturn.errors import ConfigurationError

BASIC = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
EXTENSION = "\f^{}\\[~]|€"

gsm_7 = st.text(st.sampled_from(BASIC + EXTENSION + "abcXYZ  "), max_size=500)
anything = st.text(
    st.one_of(
        st.sampled_from("abc de. fg,\n{€😀한é\u0301\u200d👩🇩🇪"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=3000,
)


def channel(**options: int) -> SmsChannel:
    return SmsChannel("AC1", "token", **options)  # type: ignore[arg-type]


def counted_slowly(text: str) -> int:
    """The segments, filled one after the other with one character after the other."""
    if is_gsm_7(text):
        units, alone, each = [2 if char in EXTENSION else 1 for char in text], 160, 153
    else:
        units, alone, each = [len(char.encode("utf-16-le")) // 2 for char in text], 70, 67
    if sum(units) <= alone:
        return 1 if text else 0
    segments, filled = 1, 0
    for size in units:
        if filled + size > each:
            segments, filled = segments + 1, 0
        filled += size
    return segments


class TestCounting:
    @pytest.mark.parametrize(
        ("text", "segments"),
        [
            ("", 0),
            ("a", 1),
            ("a" * 160, 1),
            ("a" * 161, 2),
            ("a" * 306, 2),
            ("a" * 307, 3),
            ("a" * 1600, 11),
            ("{" * 80, 1),
            ("{" * 81, 2),
            ("a" * 159 + "€", 2),
            # A character of two units that would begin with the last of a segment goes into the next one.
            ("a" * 152 + "€" + "a" * 152, 3),
            ("a" * 151 + "€" + "a" * 153, 2),
            ("ñ" * 160, 1),
            ("ç", 1),  # not in GSM-7, though its capital is
            ("ç" + "a" * 69, 1),
            ("ç" + "a" * 70, 2),
            ("한" * 70, 1),
            ("한" * 71, 2),
            ("한" * 134, 2),
            ("한" * 135, 3),
            ("😀" * 35, 1),
            ("😀" * 36, 2),
            ("a" * 66 + "😀" + "a" * 66, 3),
            ("a" * 65 + "😀" + "a" * 67, 2),
            ("“quoted”" + "a" * 63, 2),
        ],
    )
    def test_segments_are_those_that_are_charged(self, text: str, segments: int) -> None:
        assert count_segments(text) == segments

    @given(st.one_of(gsm_7, anything))
    def test_segments_are_as_many_as_filling_them_one_by_one_gives(self, text: str) -> None:
        assert count_segments(text) == counted_slowly(text)

    def test_one_character_outside_gsm_7_makes_the_whole_text_another(self) -> None:
        assert is_gsm_7(BASIC + EXTENSION)
        assert not is_gsm_7("a" * 159 + "’")
        assert (count_segments("a" * 160), count_segments("a" * 159 + "’")) == (1, 3)

    def test_characters_of_two_units_count_as_two(self) -> None:
        assert count_characters("a€😀한") == 1 + 2 + 2 + 1

    @given(anything, st.characters(exclude_categories=["Cs"]))
    def test_neither_shrinks_as_a_text_grows(self, text: str, more: str) -> None:
        assert count_segments(text + more) >= count_segments(text)
        assert count_characters(text + more) > count_characters(text)


class TestParts:
    def test_a_reply_of_1600_characters_is_one_part(self) -> None:
        assert channel().parts("a" * 1600) == ["a" * 1600]
        assert [len(part) for part in channel().parts("a" * 1601)] == [1600, 1]

    def test_a_reply_outside_gsm_7_is_cut_where_it_would_be_too_many_sms(self) -> None:
        assert [len(part) for part in channel().parts("한" * 1000)] == [11 * 67, 1000 - 11 * 67]

    def test_a_part_ends_where_a_reader_would_pause(self) -> None:
        sentence = "It is a quarter past nine, and nobody is here. "
        parts = channel(max_segments=1).parts(sentence * 10)

        assert len(parts) == 4
        assert all(part.endswith("here.") and len(part) <= 160 for part in parts)

    @pytest.mark.parametrize("reply", ["", "  \n "])
    def test_an_empty_reply_is_not_sent(self, reply: str) -> None:
        assert channel().parts(reply) == []

    @given(anything, st.integers(1, 24))
    def test_parts_are_within_the_limits_and_nothing_is_lost(self, reply: str, most: int) -> None:
        parts = channel(max_segments=most).parts(reply)

        for part in parts:
            assert part.strip()
            assert len(part.encode("utf-16-le")) // 2 <= 1600
            assert counted_slowly(part) <= most
        assert "".join("".join(parts).split()) == "".join(reply.split())

    @given(gsm_7)
    def test_a_short_reply_is_sent_whole(self, reply: str) -> None:
        assert channel().parts(reply) == ([reply.strip()] if reply.strip() else [])

    @pytest.mark.parametrize("most", [0, -1])
    def test_at_least_one_sms_must_be_allowed(self, most: int) -> None:
        with pytest.raises(
            ConfigurationError, match=f"max_segments of SmsChannel must be at least 1, not {most}"
        ):
            channel(max_segments=most)

    def test_parts_of_a_very_long_reply_are_few_as_they_can_be(self) -> None:
        reply = "word " * 20_000

        assert len(channel().parts(reply)) == math.ceil(len(reply) / 1600)
