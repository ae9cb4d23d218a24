"""Logs: whatever is logged, it begins no line, and tells no terminal what to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from inturn.logs import configure_logging
from inturn.settings import load_settings

HOSTILE = [
    "s\n2026-01-01T00:00:00.000000Z [error    ] forged [inturn]",
    "s\r2026-01-01T00:00:00.000000Z [error    ] forged [inturn]",
    "s\x0b\x0c\x852026-01-01T00:00:00.000000Z [error    ] forged",
    "s\u2028\u20292026-01-01T00:00:00.000000Z [error    ] forged",
    "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "\x9b31mred",
    '"}\n{"event": "forged", "level": "error"}',
    "\u202egnihtemos",
    "\ud800",
    "\x00",
]
IDS = [f"hostile {number}" for number in range(len(HOSTILE))]


class HostileError(Exception):
    pass


def as_a_value(text: str) -> None:
    structlog.get_logger("inturn.test").info(
        "session deleted", session_id=text, also=[text], deep={text: text}
    )


def as_the_event(text: str) -> None:
    structlog.get_logger("inturn.test").info(text)


def by_a_library(text: str) -> None:
    logging.getLogger("some.library").warning("cannot %s", text)


def as_an_error(text: str) -> None:
    try:
        raise HostileError(text)
    except HostileError:
        structlog.get_logger("inturn.test").warning("it failed", exc_info=True)


def as_a_librarys_error(text: str) -> None:
    try:
        raise HostileError(text)
    except HostileError:
        logging.getLogger("some.library").exception("it failed")


def bound(text: str) -> None:
    with structlog.contextvars.bound_contextvars(session_id=text):
        structlog.get_logger("inturn.test").info("turn")


WAYS = [as_a_value, as_the_event, by_a_library, as_an_error, as_a_librarys_error, bound]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)


def logged(capsys: pytest.CaptureFixture[str], log_format: str, way: Callable[[str], None], text: str) -> str:
    structlog.reset_defaults()
    configure_logging(load_settings(log_format=log_format))
    capsys.readouterr()
    way(text)
    return capsys.readouterr().err


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("text", HOSTILE, ids=IDS)
def test_no_value_begins_a_line(
    capsys: pytest.CaptureFixture[str], text: str, way: Callable[[str], None]
) -> None:
    said = logged(capsys, "console", way, text)

    first, *others = said.splitlines()
    assert first.startswith("20")
    assert all(line.startswith("    ") for line in others), others
    assert [char for char in said if not char.isprintable() and char != "\n"] == []


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("text", HOSTILE, ids=IDS)
def test_json_is_one_object_a_line(
    capsys: pytest.CaptureFixture[str], text: str, way: Callable[[str], None]
) -> None:
    said = logged(capsys, "json", way, text)

    (line,) = said.splitlines()
    assert line.isascii()
    record = json.loads(line)
    assert "forged" not in record
    assert record["level"] in ("info", "warning", "error")


def test_what_is_plain_is_logged_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert "session_id=Zürich-日本-🙂" in logged(capsys, "console", bound, "Zürich-日本-🙂")
