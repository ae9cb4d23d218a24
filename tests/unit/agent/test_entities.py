"""find_entities: what a text contains, by rules."""

from __future__ import annotations

import datetime as dt

import pytest

from inturn.agent.entities import find_entities

THURSDAY = dt.date(2026, 10, 1)


def found(text: str, **options: bool) -> list[tuple[str, object]]:
    return [(entity.kind, entity.value) for entity in find_entities(text, THURSDAY, **options)]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-12-24", "2026-12-24"),
        ("24.12.2026", "2026-12-24"),
        ("3/11/2026", "2026-11-03"),
        ("24 December", "2026-12-24"),
        ("24th of december, please", "2026-12-24"),
        ("Dec 24", "2026-12-24"),
        ("May 5th, 2027", "2027-05-05"),
        ("12 may", "2027-05-12"),
        ("the 3rd", "2026-10-03"),
        ("the 1st", "2026-10-01"),
        ("today", "2026-10-01"),
        ("tonight", "2026-10-01"),
        ("this evening", "2026-10-01"),
        ("Tomorrow", "2026-10-02"),
        ("the day after tomorrow", "2026-10-03"),
        ("in 3 days", "2026-10-04"),
        ("in two weeks", "2026-10-15"),
        ("on friday", "2026-10-02"),
        ("next Thursday", "2026-10-08"),
        ("Monday", "2026-10-05"),
        ("on sat", "2026-10-03"),
        ("yesterday", "2026-09-30"),
        ("the day before yesterday", "2026-09-29"),
        ("two weeks ago", "2026-09-17"),
        ("last Monday", "2026-09-28"),
        ("last thursday", "2026-09-24"),
        ("last friday", "2026-09-25"),
        ("fri at 9", "2026-10-02"),
    ],
)
def test_a_date_is_found(text: str, day: str) -> None:
    assert found(text)[0] == ("date", day)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("19:30", "19:30:00"),
        ("7:30 pm", "19:30:00"),
        ("7:30", "19:30:00"),
        ("07:30", "07:30:00"),
        ("7pm", "19:00:00"),
        ("7 a.m.", "07:00:00"),
        ("12 am", "00:00:00"),
        ("12 pm", "12:00:00"),
        ("noon", "12:00:00"),
        ("midnight", "00:00:00"),
        ("half past seven", "19:30:00"),
        ("half past seven in the morning", "07:30:00"),
        ("quarter past 8", "20:15:00"),
        ("quarter to one", "12:45:00"),
        ("at eight", "20:00:00"),
        ("at 11", "11:00:00"),
        ("at 11 in the evening", "23:00:00"),
        ("9 o'clock", "21:00:00"),
        ("19h30", "19:30:00"),
    ],
)
def test_a_time_is_found(text: str, time: str) -> None:
    assert ("time", time) in found(text)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("we are five", "number", 5),
        ("a couple of", "number", 2),
        ("12", "number", 12),
        ("-3", "number", -3),
        ("1,500.50", "number", 1500.5),
        ("2.5", "number", 2.5),
        ("call 555-0101", "phone", "555-0101"),
        ("+49 (170) 123-4567", "phone", "+49 (170) 123-4567"),
        ("ann.lee+x@mail.example.org!", "email", "ann.lee+x@mail.example.org"),
        ("my name is Ann", "name", "Ann"),
        ("I'm Zoë O'Hara", "name", "Zoë O'Hara"),
        ("under Smith please", "name", "Smith"),
        ("Ann Lee", "name", "Ann Lee"),
    ],
)
def test_other_things_are_found(text: str, kind: str, value: object) -> None:
    assert found(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello there",
        "I am hungry",
        "see you around",
        "Thank You",
        "the sun sat there",
        "2nd",
        "v2",
        "someone",
    ],
)
def test_nothing_is_found_where_nothing_is(text: str) -> None:
    assert found(text) == []


def test_parts_of_one_thing_are_not_another() -> None:
    assert found("4 of us on 12 May at 7:30 pm, 555-010-1234") == [
        ("number", 4),
        ("date", "2027-05-12"),
        ("time", "19:30:00"),
        ("phone", "555-010-1234"),
    ]


@pytest.mark.parametrize("text", ["31 February", "99.99.2026", "25:00", "10:75"])
def test_what_is_no_date_or_time_is_none(text: str) -> None:
    assert {kind for kind, _ in found(text)} & {"date", "time"} == set()


@pytest.mark.parametrize("text", ["8", "eight please", "around 8?"])
def test_a_bare_number_is_an_hour_where_a_time_is_expected(text: str) -> None:
    assert found(text, expects_time=True) == [("time", "20:00:00")]
    assert found(text) == [("number", 8)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("A-1001", "A-1001"),
        ("my order is ab1001.", "ab1001"),
        ("#7 please", "7"),
        ("4711", "4711"),
        ("GB-2026-004", "GB-2026-004"),
    ],
)
def test_a_code_is_found_where_one_is_expected(text: str, code: str) -> None:
    assert ("code", code) in found(text, expects_code=True)
    assert "code" not in dict(found(text))


@pytest.mark.parametrize(
    "text", ["room 12", "v2", "7pm", "2026-12-24", "24.12.2026", "555-010-1234", "1,500"]
)
def test_what_is_something_else_is_no_code(text: str) -> None:
    assert "code" not in dict(found(text, expects_code=True))


def test_the_end_of_a_very_long_text_is_not_read() -> None:
    assert found("5 " + "a" * 2000 + " 6") == [("number", 5)]


def test_places_are_those_in_the_text() -> None:
    text = "Hi, on friday at 8 for two"

    assert [text[entity.start : entity.end] for entity in find_entities(text, THURSDAY)] == [
        "friday",
        "at 8",
        "two",
    ]
