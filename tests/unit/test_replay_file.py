"""Recorded conversations are read strictly and offered in order; what came of them is counted right.

The client here is a stand-in: these tests are about whose line is offered when, and by how many threads.
That the queue itself keeps order is shown against real workers elsewhere.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from inturn.cli.conversations import Line, read_conversations
from inturn.cli.replay import Latency, Progress, Refusal, ReplayReport, measure, partition, replay
from inturn.client import Client, TurnHandle
from inturn.contract import Response, TurnFault, TurnResult
from inturn.errors import InvalidInputError, MailboxFullError, MailboxUnavailableError
from inturn.ids import create_turn_id
from inturn.persistence.memory import MemoryAdapter
from inturn.session.state import Message, SessionState, TurnRecord, utcnow

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: object) -> Path:
        path = tmp_path / "talk.jsonl"
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text(text, encoding="utf-8")
        return path

    return write


# Reading


def test_a_line_needs_a_session_and_a_text_only(write: Callable[..., Path]) -> None:
    path = write({"session_id": "s1", "text": "Hello"}, {"session_id": "s2", "text": "Hi"})

    assert read_conversations(path) == [Line(1, "s1", "Hello", "line-1"), Line(2, "s2", "Hi", "line-2")]


def test_what_a_line_says_is_kept_and_other_keys_are_ignored(write: Callable[..., Path]) -> None:
    path = write(
        {"session_id": "s1", "text": "Hello", "user_id": "u", "turn_id": "evt-1", "at": 12.5, "turn": 1}
    )

    assert read_conversations(path) == [Line(1, "s1", "Hello", "evt-1", "u", 12.5)]


def test_empty_lines_are_skipped_and_counted(write: Callable[..., Path]) -> None:
    path = write("", {"session_id": "s1", "text": "Hello"}, "  ", {"session_id": "s1", "text": "Hi"}, "")

    assert [line.turn_id for line in read_conversations(path)] == ["line-2", "line-4"]


def test_a_separator_inside_a_text_ends_no_line(write: Callable[..., Path]) -> None:
    path = write('{"session_id": "s1", "text": "one\u2028two"}')

    assert [line.text for line in read_conversations(path)] == ["one\u2028two"]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"session_id": "s1", "text": "a"}\r\n{"session_id": "s1", "text": "b"}\r\n'
    )

    assert [line.text for line in read_conversations(path)] == ["a", "b"]


def test_times_may_be_iso_times(write: Callable[..., Path]) -> None:
    times = "2026-03-01T12:00:00+01:00", "2026-03-01T11:00:01.5Z", "2026-03-01T11:00:03"
    path = write(*({"session_id": "s1", "text": "Hello", "at": at} for at in times))

    first, second, third = (line.at for line in read_conversations(path))

    assert first is not None
    assert second == first + 1.5
    assert third == first + 3


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        ('{"session_id": "s1", "text": "Hel', "this is not JSON in UTF-8; write one object per line"),
        ("[1]", "a line must be a JSON object, not list"),
        ({"text": "Hello"}, '"session_id" is missing; every line needs "session_id" and "text"'),
        ({"session_id": "s1"}, '"text" is missing; every line needs "session_id" and "text"'),
        ({"session_id": "s1", "text": " "}, '"text" must be a string that is not empty'),
        ({"session_id": "s1", "text": 7}, '"text" must be a string that is not empty'),
        ({"session_id": "s1", "text": "a\x00b"}, '"text" contains a NUL character'),
        ({"session_id": "s1", "text": "a\ud800b"}, '"text" contains a lone surrogate'),
        ({"session_id": "", "text": "Hello"}, "a session ID must not be empty"),
        ({"session_id": {"$ne": 1}, "text": "Hello"}, "a session ID must be a string, not dict"),
        ({"session_id": "s1", "text": "Hello", "user_id": 3}, "a user ID must be a string, not int"),
        ({"session_id": "s1", "text": "Hello", "turn_id": "a\nb"}, "a turn ID must not contain control"),
        ({"session_id": "s1", "text": "Hello", "at": "noon"}, '"at" must be seconds as a number'),
        ({"session_id": "s1", "text": "Hello", "at": True}, '"at" must be seconds as a number'),
        ('{"session_id": "s1", "text": "Hello", "at": NaN}', '"at" must be seconds as a number'),
        ({"session_id": "s1", "text": "Hello", "at": "2026-03-01"}, '"at" must be seconds on all lines or'),
    ],
)
def test_a_bad_line_is_named_with_its_mend(write: Callable[..., Path], line: object, mend: str) -> None:
    path = write({"session_id": "s1", "text": "Hello", "at": 1}, line)

    with pytest.raises(InvalidInputError) as caught:
        read_conversations(path)

    assert str(caught.value).startswith(f"{path}, line 2: {mend}")
    assert "Hel" not in str(caught.value)


def test_a_file_that_is_not_there_or_empty_is_named(write: Callable[..., Path]) -> None:
    with pytest.raises(InvalidInputError, match="has no lines; write one like"):
        read_conversations(write("\n"))
    with pytest.raises(InvalidInputError, match=r"nowhere\.jsonl cannot be read: No such file"):
        read_conversations("nowhere.jsonl")


def test_the_conversations_that_ship_with_inturn_are_what_the_demo_promises() -> None:
    lines = read_conversations(EXAMPLES / "conversations.jsonl")
    times = [line.at for line in lines if line.at is not None]
    events: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        events.setdefault((line.session_id, line.turn_id), []).append(line)
    by_session: dict[str, list[Line]] = {}
    for first, *_ in events.values():
        by_session.setdefault(first.session_id, []).append(first)
    doubles = [
        later
        for some in by_session.values()
        for earlier, later in pairwise(some)
        if (later.at or 0) - (earlier.at or 0) < 1
    ]

    assert len(by_session) >= 60
    assert len(events) >= 400
    assert len(times) == len(lines)
    assert times == sorted(times)
    assert len(doubles) >= 20
    assert sum(len(some) > 1 for some in events.values()) >= 20
    assert all(len({line.text for line in some}) == 1 for some in events.values())


# Replaying


class StandInClient:
    """Accepts and commits every message at once; one subclass per way in which that can go wrong."""

    def __init__(self) -> None:
        self.store = MemoryAdapter()
        self.offered: list[tuple[str, str]] = []
        self.at: list[float] = []
        self.results: dict[str, TurnResult] = {}
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def respond(
        self, session_id: str, message: str, *, turn_id: str | None = None, user_id: str | None = None
    ) -> TurnHandle:
        full_id = create_turn_id(session_id, turn_id)
        with self._lock:
            assert session_id not in self._busy, "two producers offer the same session"
            self._busy.add(session_id)
            self.offered.append((session_id, message))
            self.at.append(time.monotonic())
        try:
            known = full_id in self.results
            if not known:
                self.results[full_id] = self.commit(session_id, full_id, message)
            return TurnHandle(cast(Client, self), session_id, full_id, accepted=not known, ahead=0)
        finally:
            with self._lock:
                self._busy.remove(session_id)

    def commit(self, session_id: str, turn_id: str, message: str) -> TurnResult:
        found = self.store.load(session_id)
        session = found.session if found else SessionState(id=session_id)
        began = utcnow()
        common: dict[str, Any] = {"session_id": session_id, "turn_id": turn_id}
        messages = [
            Message(role="user", content=message, created_at=began, **common),
            Message(role="assistant", content="yes", created_at=utcnow(), **common),
        ]
        record = TurnRecord(session_id=session_id, turn_id=turn_id)
        self.store.commit(session, messages, expected_version=session.version, turn=record)
        response = Response(message="yes", session_id=session_id, turn_id=turn_id)
        return TurnResult(kind="respond", session_id=session_id, turn_id=turn_id, response=response)

    def collect(
        self, handles: Iterable[TurnHandle], *, timeout: float | None = 60.0
    ) -> Iterator[tuple[TurnHandle, TurnResult]]:
        for handle in handles:
            if handle.turn_id in self.results:
                yield handle, self.results[handle.turn_id]

    def texts(self, session_id: str) -> list[str]:
        return [text for session, text in self.offered if session == session_id]


def run(client: StandInClient, lines: Iterable[Line], **options: Any) -> ReplayReport:
    return replay(cast(Client, client), client.store, lines, **options)


def talk(sessions: int, messages: int) -> list[Line]:
    """A recording of so many sessions side by side."""
    places = ((message, session) for message in range(messages) for session in range(sessions))
    return [
        Line(number, f"s{session}", f"message {message}", f"evt-{number}")
        for number, (message, session) in enumerate(places, 1)
    ]


@pytest.mark.parametrize("producers", [1, 4, 9])
def test_each_session_is_offered_in_order_however_many_producers(producers: int) -> None:
    client = StandInClient()

    report = run(client, talk(30, 20), producers=producers)

    for session in range(30):
        assert client.texts(f"s{session}") == [f"message {message}" for message in range(20)]
    assert report.ok, report.verdict.explain()
    assert (report.lines, report.turns, report.answered, report.unanswered) == (600, 600, 600, 0)


def test_all_producers_have_work_and_none_shares_a_session() -> None:
    lines = talk(100, 3)

    parts = partition(lines, 4)

    assert sorted(line.number for part in parts for line in part) == [line.number for line in lines]
    assert all(parts)
    assert sum(len({line.session_id for line in part}) for part in parts) == 100


def test_an_event_delivered_again_is_one_turn() -> None:
    once = Line(1, "s1", "Hello", "evt-1")

    report = run(StandInClient(), [once, Line(2, "s1", "Hello", "evt-1"), Line(3, "s1", "Hi", "evt-2")])

    assert report.ok
    assert (report.lines, report.turns, report.repeated, report.answered) == (3, 2, 1, 2)


def test_a_recording_replayed_again_is_known() -> None:
    client = StandInClient()
    run(client, talk(3, 2))

    report = run(client, talk(3, 2))

    assert report.ok
    assert (report.turns, report.known, report.answered, report.latency) == (6, 6, 6, None)
    assert report.verdict.committed == 6


class ShakyClient(StandInClient):
    """Every line is offered in vain twice, for one reason and for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str | None] = []

    def respond(self, session_id: str, *args: Any, turn_id: str | None = None, **options: Any) -> TurnHandle:
        self.calls.append(turn_id)
        match self.calls.count(turn_id):
            case 1:
                raise MailboxUnavailableError(turn_id=turn_id)
            case 2:
                raise MailboxFullError(session_id, 1000)
        return super().respond(session_id, *args, turn_id=turn_id, **options)


def test_a_line_offered_in_vain_is_offered_again_before_the_next() -> None:
    client = ShakyClient()

    report = run(client, talk(1, 3), producers=3)

    assert client.calls == ["evt-1"] * 3 + ["evt-2"] * 3 + ["evt-3"] * 3
    assert report.ok
    assert (report.turns, report.known) == (3, 0)


class AwayClient(StandInClient):
    """Redis is away and stays away; the first to notice is the producer of session s0."""

    def respond(self, session_id: str, *args: Any, turn_id: str | None = None, **options: Any) -> TurnHandle:
        if session_id == "s0":
            raise MailboxUnavailableError(turn_id=turn_id)
        return super().respond(session_id, *args, turn_id=turn_id, **options)


def test_the_replay_stops_when_redis_stays_away() -> None:
    client = AwayClient()
    lines = [Line(1, "s0", "Hello", "evt-1"), *(Line(n, "s1", "Hi", f"e{n}", at=n) for n in range(2, 100))]

    with pytest.raises(MailboxUnavailableError):
        run(client, lines, speed=1.0, timeout=0.1)

    # The other producer, which keeps the recorded times, has stopped as well.
    assert 1 <= len(client.offered) < 98


class StrictClient(StandInClient):
    """Refuses long messages."""

    def respond(self, session_id: str, message: str, **options: Any) -> TurnHandle:
        if len(message) > 100:
            raise InvalidInputError("a message may have 100 characters")
        return super().respond(session_id, message, **options)


def test_a_line_that_can_never_be_accepted_is_reported_and_the_rest_goes_on() -> None:
    client = StrictClient()
    lines = [Line(1, "s1", "a", "1"), Line(2, "s1", "b" * 101, "2"), Line(3, "s1", "c", "3")]

    report = run(client, lines)

    assert client.texts("s1") == ["a", "c"]
    assert report.refused == (Refusal(2, "a message may have 100 characters"),)
    assert report.verdict.ok
    assert not report.ok


class SlowClient(StandInClient):
    """Answers all turns but those of session s1."""

    def collect(
        self, handles: Iterable[TurnHandle], *, timeout: float | None = 60.0
    ) -> Iterator[tuple[TurnHandle, TurnResult]]:
        return super().collect([handle for handle in handles if handle.session_id != "s1"], timeout=timeout)


def test_waiting_ends_when_nothing_comes_any_more() -> None:
    report = run(SlowClient(), talk(3, 4), timeout=0.1)

    assert (report.turns, report.answered, report.unanswered) == (12, 8, 4)
    assert report.verdict.ok
    assert not report.ok


class FlickeringClient(StandInClient):
    """Redis is away at the first question for results."""

    asked = False

    def collect(
        self, handles: Iterable[TurnHandle], *, timeout: float | None = 60.0
    ) -> Iterator[tuple[TurnHandle, TurnResult]]:
        if not self.asked:
            self.asked = True
            raise MailboxUnavailableError
        return super().collect(handles, timeout=timeout)


def test_results_are_asked_for_again_when_redis_was_away() -> None:
    assert run(FlickeringClient(), talk(2, 2)).answered == 4


class ForgetfulClient(StandInClient):
    """Says yes to one message and loses it; fails another."""

    def commit(self, session_id: str, turn_id: str, message: str) -> TurnResult:
        if message == "message 1":
            response = Response(message="sorry", session_id=session_id, turn_id=turn_id)
            fault = TurnFault(type="ProviderError", message="no answer")
            return TurnResult(
                kind="respond",
                session_id=session_id,
                turn_id=turn_id,
                state="failed",
                response=response,
                error=fault,
            )
        return super().commit(session_id, turn_id, message)


def test_the_report_tells_what_was_lost_and_what_failed() -> None:
    report = run(ForgetfulClient(), talk(2, 3))

    assert report.verdict.violations == {"lost": 2}
    assert (report.answered, report.failed) == (6, 2)
    assert not report.ok


def test_progress_ends_with_everything_offered_and_answered() -> None:
    seen: list[Progress] = []

    run(StandInClient(), talk(5, 5), on_progress=seen.append)

    assert seen[-1] == Progress(lines=25, offered=25, turns=25, answered=25)
    assert [progress.answered for progress in seen] == sorted(progress.answered for progress in seen)
    assert len(seen) == len(set(seen))


def test_recorded_times_are_kept_at_the_speed_asked_for() -> None:
    client = StandInClient()
    lines = [Line(1, "s1", "a", "1", at=100.0), Line(2, "s1", "b", "2"), Line(3, "s1", "c", "3", at=102.0)]

    began = time.monotonic()
    run(client, lines, speed=10.0)

    assert client.texts("s1") == ["a", "b", "c"]
    assert client.at[2] - began > 0.19


@pytest.mark.parametrize("options", [{"speed": 0}, {"speed": float("nan")}, {"producers": 0}])
def test_a_speed_or_a_number_of_producers_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    client = StandInClient()

    with pytest.raises(InvalidInputError):
        run(client, talk(1, 1), **options)

    assert client.offered == []


def test_percentiles_are_latencies_that_did_occur() -> None:
    assert measure([]) is None
    assert measure([3.0]) == Latency(3.0, 3.0, 3.0, 3.0)
    assert measure([float(n) for n in range(100, 0, -1)]) == Latency(50.0, 95.0, 99.0, 100.0)
