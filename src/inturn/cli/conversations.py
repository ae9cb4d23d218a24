"""Recorded conversations: the lines of a JSONL file that `inturn replay` sends."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inturn.errors import InvalidInputError
from inturn.ids import check_id
from inturn.values import to_text


@dataclass(frozen=True, slots=True)
class Line:
    """One message of a user.

    `number` is the line's place in its file, from 1. `turn_id` is the producer's key: two lines of a session
    with the same one are one event, delivered twice. `at` is when the message was sent, in seconds; only
    differences of it mean anything.
    """

    number: int
    session_id: str
    text: str
    turn_id: str
    user_id: str | None = None
    at: float | None = None


def read_conversations(path: str | Path) -> list[Line]:
    """Read a file of one JSON object per line; empty lines are skipped.

    Each object has `session_id` and `text`, and may have `user_id`, `turn_id` (default: `line-<number>`, so
    that the same file replayed again is recognised) and `at` (seconds as a number, or an ISO time; without a
    time zone it is UTC; either on all lines that have it). Other keys are ignored.

    Raises `InvalidInputError` that names the file, the first bad line and the mend.
    """
    path = Path(path)
    lines: list[Line] = []
    clock: type | None = None
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.strip():
                    continue
                try:
                    record = _record(raw)
                    line = _line(number, record)
                    if line.at is not None:
                        clock = _same_clock(clock, record["at"])
                except InvalidInputError as error:
                    raise InvalidInputError(f"{path}, line {number}: {error}") from None
                lines.append(line)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error
    if not lines:
        raise InvalidInputError(
            f'{path} has no lines; write one like {{"session_id": "s1", "text": "Hello"}}'
        )
    return lines


def _record(raw: bytes) -> dict[str, Any]:
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        # The decoder's own message would quote the line.
        raise InvalidInputError("this is not JSON in UTF-8; write one object per line") from None
    if not isinstance(record, dict):
        raise InvalidInputError(f"a line must be a JSON object, not {type(record).__name__}")
    return record


def _line(number: int, record: Mapping[str, Any]) -> Line:
    for key in ("session_id", "text"):
        if record.get(key) is None:
            raise InvalidInputError(f'"{key}" is missing; every line needs "session_id" and "text"')
    text = record["text"]
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError('"text" must be a string that is not empty')
    user_id, turn_id = record.get("user_id"), record.get("turn_id")
    return Line(
        number=number,
        session_id=check_id(record["session_id"]),
        text=to_text(text, '"text"'),
        turn_id=f"line-{number}" if turn_id is None else check_id(turn_id, "turn ID"),
        user_id=None if user_id is None else check_id(user_id, "user ID"),
        at=_seconds(record.get("at")),
    )


def _seconds(at: object) -> float | None:
    if at is None:
        return None
    if isinstance(at, int | float) and not isinstance(at, bool) and math.isfinite(at):
        return float(at)
    if isinstance(at, str):
        try:
            time = datetime.fromisoformat(at)
        except ValueError:
            pass
        else:
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    raise InvalidInputError('"at" must be seconds as a number, such as 12.5, or an ISO time')


def _same_clock(clock: type | None, at: object) -> type:
    kind = str if isinstance(at, str) else float
    if clock is not None and kind is not clock:
        raise InvalidInputError('"at" must be seconds on all lines or an ISO time on all lines')
    return kind
