"""Entities: the dates, times, numbers, addresses and names that a text contains, found by rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import Any, NamedTuple

_COUNTS = "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
_NUMBERS = {word: number for number, word in enumerate(_COUNTS)} | {"a couple": 2, "a dozen": 12}
_WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_READ = 2000  # some patterns take the square of a hostile text's length


@dataclass(frozen=True)
class Entity:
    """Something found: its kind, where it starts and ends in the text, and its JSON value."""

    kind: str
    start: int
    end: int
    value: Any


class _Said(NamedTuple):
    """The whole text in lower case, and the day it was said."""

    text: str
    today: date


def find_entities(
    text: str, today: date, *, expects_time: bool = False, expects_code: bool = False
) -> list[Entity]:
    """All that the first 2,000 characters of `text` contain, in order, without overlaps.

    Kinds: `email`, `date` and `time` (ISO 8601), `phone`, `name` and `number` (int or float; words up to
    twelve). A date without a year is the next one from `today` on, a weekday never today; "last" and "ago"
    look back. An hour from 1 to 9 without "am" or "morning" is in the afternoon, unless written with two
    digits. With `expects_time` a text whose only number is an hour is a time, with `expects_code` something
    like "A-1001", "#7" or "4711" is a `code`.
    """
    found: list[Entity] = []
    said = _Said(text.lower(), today)
    rest = text[:_READ]
    for kind, pattern, read in _RULES:
        if (read is _bare_hour and not expects_time) or (kind == "code" and not expects_code):
            continue
        for match in pattern.finditer(rest):
            value = read(match, said)
            if value is not None:
                found.append(Entity(kind, *match.span(), value))
        # What is found is hidden from the rules below: the digits of a date are not a number as well.
        for entity in found:
            rest = rest[: entity.start] + "\0" * (entity.end - entity.start) + rest[entity.end :]
    return sorted(found, key=lambda entity: entity.start)


def _iso_date(match: re.Match[str], _said: _Said) -> str | None:
    return _date(int(match["year"]), int(match["month"]), int(match["day"]))


def _day_of_month(match: re.Match[str], said: _Said) -> str | None:
    month, day = _MONTHS.index(match["month"][:3].lower()) + 1, int(match["day"])
    if match["year"]:
        return _date(int(match["year"]), month, day)
    this_year = _date(said.today.year, month, day)
    return (
        this_year
        if this_year and this_year >= said.today.isoformat()
        else _date(said.today.year + 1, month, day)
    )


def _day_alone(match: re.Match[str], said: _Said) -> str | None:
    days = (said.today + timedelta(days=ahead) for ahead in range(62))
    return next((day.isoformat() for day in days if day.day == int(match["day"])), None)


def _relative_day(match: re.Match[str], said: _Said) -> str:
    days = {"day after tomorrow": 2, "tomorrow": 1, "tmrw": 1, "yesterday": -1, "day before yesterday": -2}
    ahead = days.get(match[0].lower(), 0)
    return (said.today + timedelta(days=ahead)).isoformat()


def _days_ahead(match: re.Match[str], said: _Said) -> str:
    days = _int(match["count"]) * (7 if match["unit"].lower() == "week" else 1)
    return (said.today + timedelta(days=-days if match.groupdict().get("ago") else days)).isoformat()


def _weekday(match: re.Match[str], said: _Said) -> str:
    number = next(i for i, day in enumerate(_WEEKDAYS) if day.startswith(match["weekday"][:3].lower()))
    ahead = (number - said.today.weekday() - 1) % 7 + 1
    if match.groupdict().get("last"):
        ahead -= 7 if ahead < 7 else 14  # today's name means the day a week ago
    return (said.today + timedelta(days=ahead)).isoformat()


def _date(year: int, month: int, day: int) -> str | None:
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return None


def _noon_or_midnight(match: re.Match[str], _said: _Said) -> str:
    return "00:00:00" if match[0].lower() == "midnight" else "12:00:00"


def _half_or_quarter(match: re.Match[str], said: _Said) -> str | None:
    return _time(match, said, {"half past": 30, "quarter past": 15, "quarter to": -15}[match["part"].lower()])


def _clock(match: re.Match[str], said: _Said) -> str | None:
    minute = int(match["minute"])
    return _time(match, said, minute) if minute < 60 else None


def _hour(match: re.Match[str], said: _Said) -> str | None:
    return _time(match, said, 0)


def _bare_hour(match: re.Match[str], said: _Said) -> str | None:
    return _time(match, said, 0)


def _time(match: re.Match[str], said: _Said, minute: int) -> str | None:
    words = match["hour"]
    hour, half = _int(words), (match.groupdict().get("half") or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    elif 0 < hour < 12 and not words.startswith("0"):
        late = hour < 10 or "evening" in said.text or "night" in said.text
        hour += 12 if late and "morning" not in said.text else 0
    minutes = hour * 60 + minute
    return time(*divmod(minutes, 60)).isoformat() if 0 <= minutes < 24 * 60 else None


def _text(match: re.Match[str], _said: _Said) -> str:
    return (match.groupdict().get("name") or match[0]).strip()


def _code(match: re.Match[str], _said: _Said) -> str:
    return match["hash"] or match["letters"]


def _phone(match: re.Match[str], _said: _Said) -> str | None:
    return match[0].strip() if sum(char.isdigit() for char in match[0]) >= 7 else None


def _number(match: re.Match[str], _said: _Said) -> float:
    word = match[0].lower()
    if word in _NUMBERS:
        return _NUMBERS[word]
    digits = word.replace(",", "")
    return float(digits) if "." in digits else int(digits)


def _int(number: str) -> int:
    return int(number) if number.isdigit() else _NUMBERS[number.lower()]


_Read = Callable[[re.Match[str], _Said], Any]


def _rule(kind: str, pattern: str, read: _Read) -> tuple[str, re.Pattern[str], _Read]:
    return kind, re.compile(pattern.format(**_PARTS), re.IGNORECASE), read


_PARTS = {
    "HOUR": rf"(?P<hour>\d{{1,2}}|{'|'.join(_COUNTS[1:])})",
    "HALF": r"(?P<half>[ap])\.?m\b\.?",
    "DAY": r"(?P<day>\d{1,2})",
    "YEAR": r"(?:,? (?P<year>\d{4})\b)?",
    "MONTH": (
        r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
        r"sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
    ),
    "COUNT": rf"(?P<count>\d{{1,2}}|{'|'.join(_COUNTS)})",
    "WEEKDAY": f"(?P<weekday>{'|'.join(_WEEKDAYS)})",
    "SHORT_DAY": "(?P<weekday>mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun)",
    "WORDS": "|".join(sorted(_NUMBERS, key=len, reverse=True)),
    "NAME": r"(?P<name>(?-i:[^\W\d_a-z][\w'’-]*(?: [^\W\d_a-z][\w'’-]*){0,3}))",
    "FULL_NAME": r"(?P<name>(?-i:[^\W\d_a-z][\w'’-]*(?: [^\W\d_a-z][\w'’-]*){1,3}))",
}

_RULES = [
    _rule("email", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", _text),
    _rule("code", r"(?<![\w.-])(?:#(?P<hash>\d+)|(?P<letters>[a-z]{{1,6}}-?\d[\w-]*\d))(?!\w)", _code),
    _rule("date", r"\b(?P<year>\d{{4}})-(?P<month>\d{{2}})-{DAY}\b", _iso_date),
    _rule("date", r"\b{DAY}[./](?P<month>\d{{1,2}})[./](?P<year>\d{{4}})\b", _iso_date),
    _rule("date", r"\b{DAY}(?:st|nd|rd|th)?(?: of)? {MONTH}\b{YEAR}", _day_of_month),
    _rule("date", r"\b{MONTH} {DAY}(?:st|nd|rd|th)?\b{YEAR}", _day_of_month),
    _rule("date", r"\bthe {DAY}(?:st|nd|rd|th)\b", _day_alone),
    _rule("date", r"\b(?:day after tomorrow|tomorrow|tmrw|today|tonight)\b", _relative_day),
    _rule("date", r"\b(?:day before )?yesterday\b", _relative_day),
    _rule("date", r"\bthis (?:morning|afternoon|evening)\b", _relative_day),
    _rule("date", r"\bin {COUNT} (?P<unit>day|week)s?\b", _days_ahead),
    _rule("date", r"\b{COUNT} (?P<unit>day|week)s? (?P<ago>ago)\b", _days_ahead),
    _rule("date", r"\b(?:(?:next|this|coming|(?P<last>last)) )?{WEEKDAY}\b", _weekday),
    _rule("date", r"\b(?:on|next|this) {SHORT_DAY}\b", _weekday),
    _rule("date", r"\b{SHORT_DAY}(?= (?:at )?\d)", _weekday),
    _rule("time", r"\b(?P<hour>\d{{1,2}})[:h](?P<minute>\d{{2}})(?!\d)(?: ?{HALF})?", _clock),
    _rule("time", r"\b{HOUR} ?{HALF}", _hour),
    _rule("time", r"\b(?P<part>half past|quarter past|quarter to) {HOUR}\b", _half_or_quarter),
    _rule("time", r"\bnoon\b|\bmidday\b|\bmidnight\b", _noon_or_midnight),
    _rule("time", r"\b{HOUR} ?o['’]?clock\b", _hour),
    _rule("phone", r"(?<![\w.])\+?\(?\d[\d ()/.-]{{4,}}\d(?!\w)", _phone),
    _rule("code", r"(?<![\w.,-])\d{{4,}}(?![\w-])", _text),
    _rule("time", r"\bat {HOUR}\b(?! (?:people|persons|guests|(?-i:[A-Z])))", _hour),
    _rule("time", r"^[^\d\0]*?\b{HOUR}\b[^\d\0]*$", _bare_hour),
    _rule(
        "name",
        r"\b(?:my name is|my name['’]s|the name is|name is|i am|i['’]m|it is|it['’]s|this is|"
        r"under the name(?: of)?|under) {NAME}",
        _text,
    ),
    _rule("name", r"^(?!thank|good|see|hello|hi\b){FULL_NAME}[^\w\0]*(?:\0.*)?$", _text),
    _rule("number", r"(?<![\w.,-])-?\d+(?:,\d{{3}})*(?:\.\d+)?(?!\w)|\b(?:{WORDS})\b", _number),
]
