"""Streams of text on a real server: what is written, who may write it, and what readers get of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inturn.client import Client, TurnHandle
from inturn.contract import Piece, Response, TurnFault, TurnResult
from inturn.embedded.valkey import EmbeddedValkey
from inturn.errors import (
    InvalidInputError,
    MailboxUnavailableError,
    TurnCancelledError,
    TurnFailedError,
    TurnTimeoutError,
)
from inturn.settings import Settings
from inturn.turns import Lease, Mailbox, Streams, StreamWriter, Write
from inturn.turns import streams as streams_module
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from inturn.turns.lease import create_token
from tests.waiting import wait_until
from worker.results import Results


class Turn:
    """One turn that runs in this process, with no agent: what it writes is up to the test."""

    def __init__(self, settings: Settings, session_id: str) -> None:
        self.client = Client(settings)
        self.keys = Keys(settings.key_prefix)
        self.redis = connect(settings)
        self.mailbox = Mailbox(self.redis, settings)
        self.streams = Streams(self.redis, settings)
        self.writer = StreamWriter(self.streams)
        self.handle: TurnHandle = self.client.handle(session_id, "t")
        self.id = self.handle.turn_id
        self.mailbox.offer(session_id, self.id, "{}")
        self.lease = self.begin()

    def begin(self) -> Lease:
        begun = self.mailbox.begin(self.handle.session_id, self.id, create_token())
        assert begun.lease is not None
        return begun.lease

    def take_over(self) -> Lease:
        """The lease as its next owner gets it; the one before knows nothing."""
        self.mailbox.release(self.lease, delay=0.001)
        wait_until(lambda: self.mailbox.look(self.handle.session_id, self.id).state == "waiting")
        lease = wait_until(
            lambda: self.mailbox.begin(self.handle.session_id, self.id, create_token()).lease,
            what="the next lease",
        )
        assert lease is not None
        return lease

    def write(
        self,
        number: int,
        text: str,
        *,
        restarts: bool = False,
        ends: bool = False,
        lease: Lease | None = None,
    ) -> None:
        self.streams.emit([Write(lease or self.lease, self.id, number, text, restarts, ends)])

    def say(self, *words: str, lease: Lease | None = None) -> None:
        """Write a reply, a word at a time, with its end."""
        for number, word in enumerate(words, 1):
            self.write(number, word, restarts=number == 1, ends=number == len(words), lease=lease)

    def result(self, message: str, fault: TurnFault | None = None) -> None:
        """Store how the turn has ended, as the worker does."""
        response = Response(message=message, session_id=self.handle.session_id, turn_id=self.id)
        state = "failed" if fault else "done"
        ended = TurnResult.model_validate(
            {
                "kind": "respond",
                "session_id": self.handle.session_id,
                "turn_id": self.id,
                "state": state,
                "response": response,
                "error": fault,
            }
        )
        Results(self.client._app, self.client.settings).store(ended, own=fault is None, runtime=0.0)

    def key(self) -> str:
        return self.keys.of_stream(self.handle.session_id, self.id)[1]

    def close(self) -> None:
        self.writer.stop()
        self.mailbox.finish(self.lease, self.id, go_on=False)
        self.redis.close()
        self.client.close()


@pytest.fixture
def turn(turn_settings: Callable[..., Settings], key_prefix: str) -> Iterator[Turn]:
    turn = Turn(turn_settings(), f"{key_prefix}:s")
    yield turn
    turn.close()


def texts(pieces: list[Piece]) -> list[str]:
    return [piece.text for piece in pieces]


def test_pieces_come_in_order_and_end_with_the_turn(turn: Turn) -> None:
    turn.say("Which ", "table", "?")
    turn.result("Which table?")

    pieces = list(turn.handle.stream())

    assert texts(pieces) == ["Which ", "table", "?"]
    assert not any(piece.restarts for piece in pieces)


def test_a_piece_is_read_while_the_turn_runs(turn: Turn) -> None:
    turn.write(1, "Which ", restarts=True)
    reader = turn.handle.stream(timeout=20)

    assert next(reader).text == "Which "
    assert turn.handle.status() == "running"
    turn.write(2, "table?", ends=True)
    assert next(reader).text == "table?"
    turn.result("Which table?")
    assert list(reader) == []


def test_a_reader_that_waits_gets_what_is_written_meanwhile(turn: Turn) -> None:
    read: list[Piece] = []
    reader = threading.Thread(target=lambda: read.extend(turn.handle.stream(timeout=20)))
    reader.start()
    for number, word in enumerate(("Which ", "table", "?"), 1):
        turn.write(number, word, restarts=number == 1, ends=number == 3)
        wait_until(lambda: len(read) == number)  # noqa: B023
    turn.result("Which table?")
    reader.join(20)

    assert texts(read) == ["Which ", "table", "?"]


def test_a_reader_resumes_behind_any_piece_also_across_a_restart(turn: Turn) -> None:
    turn.write(1, "Let me ", restarts=True)
    turn.write(2, "see")
    turn.lease = turn.take_over()
    turn.say("Which ", "table", "?")
    turn.result("Which table?")
    pieces = list(turn.handle.stream())
    assert [(piece.text, piece.restarts) for piece in pieces] == [
        ("Let me ", False),
        ("see", False),
        ("Which ", True),
        ("table", False),
        ("?", False),
    ]

    for number, piece in enumerate(pieces, 1):
        with Client(turn.client.settings) as another:
            assert list(another.stream(turn.id, after=piece.id)) == pieces[number:]


def test_a_stale_owners_text_reaches_no_reader_and_it_is_told(turn: Turn) -> None:
    stale = turn.lease
    turn.write(1, "stale", restarts=True)
    turn.lease = turn.take_over()
    turn.say("fresh")
    turn.write(2, " and late", lease=stale)
    turn.write(3, ", very late", ends=True, lease=stale)
    turn.result("fresh")

    assert stale.lost
    assert not turn.lease.lost
    assert texts(list(turn.handle.stream())) == ["stale", "fresh"]


def test_a_stale_owners_text_is_refused_before_the_next_one_has_written(turn: Turn) -> None:
    stale = turn.lease
    turn.write(1, "one", restarts=True)
    turn.lease = turn.take_over()
    turn.write(2, "two", lease=stale)

    assert stale.lost
    assert [entry.text for entry in turn.streams.read(turn.handle.session_id, turn.id)] == ["one"]


def test_a_replayed_write_changes_nothing(turn: Turn) -> None:
    for number, word in enumerate(("one ", "two ", "three"), 1):
        for _ in range(2):
            turn.write(number, word, restarts=number == 1, ends=number == 3)
    turn.write(2, "two ")
    turn.result("one two three")

    assert texts(list(turn.handle.stream())) == ["one ", "two ", "three"]
    assert not turn.lease.lost


def test_a_write_tells_that_the_turn_is_to_stop(turn: Turn) -> None:
    turn.write(1, "one", restarts=True)
    assert turn.lease.stop is None
    assert turn.handle.cancel() == "signalled"

    turn.write(2, "two")

    assert turn.lease.stop == turn.id


def test_who_takes_a_cancelled_turn_over_is_told_to_stop(turn: Turn) -> None:
    turn.handle.cancel()

    turn.lease = turn.take_over()

    assert turn.lease.stop == turn.id


def test_a_cancellation_ends_with_its_turn(turn: Turn) -> None:
    turn.handle.cancel()
    turn.mailbox.offer(turn.handle.session_id, "next", "{}")
    turn.mailbox.finish(turn.lease, turn.id, go_on=False)
    begun = turn.mailbox.begin(turn.handle.session_id, "next", create_token())
    assert begun.lease is not None
    turn.mailbox.finish(begun.lease, "next", go_on=False)

    assert begun.lease.stop is None


def test_a_stream_keeps_about_as_many_entries_as_it_may(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "MOST_ENTRIES", 100)
    for number in range(1, 501):
        turn.write(number, f"{number} ", restarts=number == 1, ends=number == 500)
    reply = "".join(f"{number} " for number in range(1, 501))
    turn.result(reply)

    assert turn.redis.xlen(turn.key()) < 300
    assert list(turn.handle.stream()) == [Piece(reply, id="end")]
    assert list(turn.handle.stream(after=f"{turn.lease.fence}-500")) == [
        Piece(reply, restarts=True, id="end")
    ]
    assert list(turn.handle.stream(after="end")) == []


def test_a_reader_is_none_the_worse_for_what_it_had_read_before_it_was_dropped(turn: Turn) -> None:
    turn.write(1, "Which ", restarts=True)
    reader = turn.handle.stream(timeout=20)
    read = [next(reader)]
    turn.redis.delete(turn.key())
    turn.write(2, "table?", ends=True)
    turn.result("Which table?")

    assert texts([*read, *reader]) == ["Which ", "table?"]


def test_text_that_was_lost_unread_is_made_up_for_at_the_end(turn: Turn) -> None:
    turn.write(1, "Which ", restarts=True)
    reader = turn.handle.stream(timeout=20)
    read = [next(reader)]
    turn.write(2, "table ")
    turn.redis.delete(turn.key())
    turn.write(3, "shall it be?", ends=True)
    turn.result("Which table shall it be?")

    assert [*read, *reader][1:] == [Piece("Which table shall it be?", restarts=True, id="end")]


def test_a_stream_that_is_gone_gives_the_whole_reply(turn: Turn) -> None:
    turn.say("Which ", "table?")
    [first, _] = turn.streams.read(turn.handle.session_id, turn.id)
    turn.redis.delete(turn.key())
    turn.result("Which table?")

    assert list(turn.handle.stream()) == [Piece("Which table?", id="end")]
    assert list(turn.handle.stream(after=first.id)) == [Piece("Which table?", restarts=True, id="end")]


def test_a_stream_expires_after_its_last_piece(
    turn_settings: Callable[..., Settings], key_prefix: str
) -> None:
    turn = Turn(turn_settings(stream_seconds=0.2), f"{key_prefix}:s")
    turn.write(1, "one", restarts=True)

    wait_until(lambda: not turn.streams.read(turn.handle.session_id, turn.id))
    turn.close()


def test_every_write_gives_the_stream_its_time_to_live(turn: Turn) -> None:
    for number in (1, 2):
        turn.write(number, "x", restarts=number == 1)
        turn.redis.pexpire(turn.key(), 1000)
    turn.write(3, "x", ends=True)

    assert 590 < turn.redis.ttl(turn.key()) <= 600


def test_a_stream_keeps_no_session_from_being_idle(turn: Turn) -> None:
    turn.say("one")

    assert turn.mailbox.finish(turn.lease, turn.id, go_on=True).outcome == "empty"
    assert turn.mailbox.waiting([turn.handle.session_id]) == set()


def test_a_turn_without_a_stream_gives_its_whole_reply_at_its_end(turn: Turn) -> None:
    turn.result("Which table?")

    assert list(turn.client.stream(turn.id)) == [Piece("Which table?", id="end")]


def test_of_a_failed_turn_the_fallback_message_is_read_before_the_error(turn: Turn) -> None:
    turn.write(1, "Which ", restarts=True)
    turn.lease = turn.take_over()
    turn.say("Sorry.")
    turn.result("Sorry.", TurnFault(type="ProviderError", message="no"))
    reader = turn.handle.stream()

    assert [next(reader).text, next(reader)[:2]] == ["Which ", ("Sorry.", True)]
    with pytest.raises(TurnFailedError):
        next(reader)


def test_reading_a_dropped_turn_says_that_it_was_cancelled(turn: Turn) -> None:
    handle = turn.client.handle(turn.handle.session_id, "waits")
    turn.mailbox.offer(turn.handle.session_id, handle.turn_id, "{}")
    assert handle.cancel() == "dropped"

    with pytest.raises(TurnCancelledError):
        list(handle.stream())


def test_nothing_for_so_long_ends_in_an_error_and_reading_goes_on_behind_what_came(turn: Turn) -> None:
    turn.write(1, "Which ", restarts=True)
    reader = turn.handle.stream(timeout=0.3)
    first = next(reader)
    with pytest.raises(TurnTimeoutError, match="running"):
        next(reader)
    turn.write(2, "table?", ends=True)
    turn.result("Which table?")

    assert texts(list(turn.handle.stream(after=first.id))) == ["table?"]


def test_an_id_that_is_none_is_refused_at_once(turn: Turn) -> None:
    with pytest.raises(InvalidInputError, match="after"):
        turn.handle.stream(after="nonsense")
    with pytest.raises(InvalidInputError, match="names no session"):
        turn.client.stream("nonsense")


def test_turns_whose_ids_look_alike_have_streams_of_their_own(
    turn_settings: Callable[..., Settings], key_prefix: str
) -> None:
    keys = Keys(key_prefix)
    number = next(  # a session in the same bucket, or its keys would differ anyway
        n for n in range(10_000) if keys.of_session(f"{key_prefix}:{n}")[0] == keys.of_session(key_prefix)[0]
    )
    one, other = (Turn(turn_settings(), session) for session in (f"{key_prefix}:{number}", key_prefix))
    one.streams.emit([Write(one.lease, "x", 1, "one", restarts=True)])
    other.streams.emit([Write(other.lease, f"{number}:x", 1, "other", restarts=True)])

    assert [entry.text for entry in one.streams.read(f"{key_prefix}:{number}", "x")] == ["one"]
    assert [entry.text for entry in other.streams.read(key_prefix, f"{number}:x")] == ["other"]
    for turn in (one, other):
        turn.close()


def test_the_newer_protocol_reads_the_same(
    turn: Turn, turn_settings: Callable[..., Settings], redis_url: str
) -> None:
    turn.say("Which ", "table?")
    turn.result("Which table?")
    divider = "&" if "?" in redis_url else "?"
    settings = turn_settings().model_copy(
        update={"redis_url": type(turn.client.settings.redis_url)(f"{redis_url}{divider}protocol=3")}
    )

    with connect(settings) as redis:
        entries = Streams(redis, settings).read(turn.handle.session_id, turn.id, wait=0.1)
        assert Streams(redis, settings).read(turn.handle.session_id, turn.id, entries[-1].id) == []

    assert [entry.text for entry in entries] == ["Which ", "table?"]


class TestWriter:
    """The thread that writes, and the replies it writes for."""

    def test_what_comes_fast_travels_together(self, turn: Turn) -> None:
        with turn.writer.open(turn.lease, turn.id) as reply:
            for word in ("Which ", "table ", "shall ", "it ", "be?"):
                reply.add(Piece(word, restarts=word == "Which "))
            turn.writer.flush()
            reply.add(Piece(" Or "))
            reply.add(Piece("none?"))
            turn.writer.flush()
            turn.writer.flush()
            reply.end("Which table shall it be? Or none?")
        turn.result("Which table shall it be? Or none?")

        assert texts(list(turn.handle.stream())) == ["Which table shall it be?", " Or none?"]

    def test_a_piece_is_written_though_no_other_follows(self, turn: Turn) -> None:
        turn.writer.start()
        with turn.writer.open(turn.lease, turn.id) as reply:
            reader = turn.handle.stream(timeout=20)
            for word in ("Let me ", "look that up"):
                reply.add(Piece(word))
                assert next(reader).text == word

    def test_another_owners_text_begins_anew(self, turn: Turn) -> None:
        with turn.writer.open(turn.lease, turn.id) as reply:
            reply.add(Piece("Which "))
            turn.writer.flush()
        turn.lease = turn.take_over()
        with turn.writer.open(turn.lease, turn.id) as reply:
            reply.add(Piece("Table "))
            reply.end("Table four.")  # as committed, whatever was told
        turn.result("Table four.")

        assert [(piece.text, piece.restarts) for piece in turn.handle.stream()] == [
            ("Which ", False),
            ("Table four.", True),
        ]

    def test_the_end_of_a_failed_turn_voids_what_its_owner_had_written(self, turn: Turn) -> None:
        with turn.writer.open(turn.lease, turn.id) as reply:
            reply.add(Piece("Which "))
            turn.writer.flush()
            reply.end("Sorry.")
        turn.result("Sorry.", TurnFault(type="ProviderError", message="no"))
        reader = turn.handle.stream()

        assert [next(reader)[:2], next(reader)[:2]] == [("Which ", False), ("Sorry.", True)]
        with pytest.raises(TurnFailedError):
            next(reader)

    def test_a_reply_that_begins_anew_voids_what_was_written(self, turn: Turn) -> None:
        with turn.writer.open(turn.lease, turn.id) as reply:
            reply.add(Piece("Which ", restarts=True))
            turn.writer.flush()
            reply.add(Piece("table?"))
            reply.add(Piece("How many ", restarts=True))
            turn.writer.flush()
            reply.add(Piece("people?"))
            reply.end("How many people?")
        turn.result("How many people?")

        assert [(piece.text, piece.restarts) for piece in turn.handle.stream()] == [
            ("Which ", False),
            ("How many ", True),
            ("people?", False),
        ]

    def test_a_lost_lease_is_noticed_and_nothing_more_is_written(self, turn: Turn) -> None:
        stale = turn.lease
        with turn.writer.open(stale, turn.id) as reply:
            turn.lease = turn.take_over()
            reply.add(Piece("late"))
            turn.writer.flush()
            assert stale.lost
            reply.add(Piece(", later"))
            turn.writer.flush()
            reply.end("late, later")

        assert turn.streams.read(turn.handle.session_id, turn.id) == []

    def test_many_replies_are_written_in_one_pipeline(
        self, turn_settings: Callable[..., Settings], key_prefix: str
    ) -> None:
        turns = [Turn(turn_settings(), f"{key_prefix}:{number}") for number in range(5)]
        writer = turns[0].writer
        for turn in turns:
            with writer.open(turn.lease, turn.id) as reply:
                reply.add(Piece(turn.id))
                writer.flush()
                reply.end(turn.id)
            turn.result(turn.id)

        for turn in turns:
            assert texts(list(turn.handle.stream())) == [turn.id]
            turn.close()

    def test_text_that_cannot_be_encoded_costs_no_other_reply_its_own(
        self, turn_settings: Callable[..., Settings], key_prefix: str
    ) -> None:
        one, other = (Turn(turn_settings(), f"{key_prefix}:{number}") for number in range(2))
        with one.writer.open(one.lease, one.id) as bad, one.writer.open(other.lease, other.id) as good:
            bad.add(Piece("half \ud83d"))
            good.add(Piece("whole"))
            one.writer.flush()
            bad.end("half \N{REPLACEMENT CHARACTER}")
            good.end("whole")
        for turn, reply in ((one, "half \N{REPLACEMENT CHARACTER}"), (other, "whole")):
            turn.result(reply)

        assert texts(list(one.handle.stream())) == ["half ?", "half \N{REPLACEMENT CHARACTER}"]
        assert texts(list(other.handle.stream())) == ["whole"]
        for turn in (one, other):
            turn.close()


class TestFaults:
    """A Redis of their own, which runs full or dies."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[EmbeddedValkey]:
        with EmbeddedValkey(tmp_path / "valkey") as server:
            yield server

    @pytest.fixture
    def turn(self, server: EmbeddedValkey) -> Iterator[Turn]:
        turn = Turn(Settings(redis_url=server.url), "s")
        yield turn
        turn.close()

    def test_more_readers_than_connections_all_get_everything_and_leave_some_to_others(
        self, turn: Turn
    ) -> None:
        read: list[list[str]] = []
        threads = [
            threading.Thread(target=lambda: read.append(texts(list(turn.handle.stream(timeout=30)))))
            for _ in range(60)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: self.blocked(turn) >= streams_module.MOST_BLOCKED)
        blocked = [self.blocked(turn) for _ in range(500)]
        for number, word in enumerate(("Which ", "table", "?"), 1):
            turn.write(number, word, restarts=number == 1, ends=number == 3)
        turn.result("Which table?")
        for thread in threads:
            thread.join(30)

        assert read == [["Which ", "table", "?"]] * 60
        assert max(blocked) <= streams_module.MOST_BLOCKED

    def blocked(self, turn: Turn) -> int:
        """How many connections wait in Redis."""
        return int(turn.redis.info("clients")["blocked_clients"])

    def test_a_reply_goes_on_when_its_text_cannot_be_written(self, turn: Turn) -> None:
        with turn.writer.open(turn.lease, turn.id) as reply:
            reply.add(Piece("Which "))
            turn.writer.flush()
            turn.redis.config_set("maxmemory", "1mb")
            reply.add(Piece("table "))
            turn.writer.flush()
            turn.redis.config_set("maxmemory", "0")
            reply.add(Piece("shall it "))
            turn.writer.flush()
            reply.add(Piece("be?"))
            reply.end("Which table shall it be?")
        turn.result("Which table shall it be?")

        assert [(piece.text, piece.restarts) for piece in turn.handle.stream()] == [
            ("Which ", False),
            ("Which table shall it ", True),
            ("be?", False),
        ]

    def test_an_end_that_cannot_be_told_is_found_in_the_result(self, turn: Turn) -> None:
        with turn.writer.open(turn.lease, turn.id) as reply:
            reply.add(Piece("Which "))
            turn.writer.flush()
            turn.redis.config_set("maxmemory", "1mb")
            reply.add(Piece("table?"))
            reply.end("Which table?")
            turn.redis.config_set("maxmemory", "0")
        turn.result("Which table?")

        assert [(piece.text, piece.restarts) for piece in turn.handle.stream()] == [
            ("Which ", False),
            ("Which table?", True),
        ]

    def test_a_redis_that_forgot_everything_costs_a_reader_no_text(
        self, turn: Turn, server: EmbeddedValkey
    ) -> None:
        turn.write(1, "Which ", restarts=True)
        reader = turn.handle.stream(timeout=20)
        read = [next(reader)]
        turn.redis.flushall()
        turn.write(2, "table?")
        assert turn.lease.lost, "and no owner writes to a turn that nobody gave it"
        turn.result("Which table?")

        assert [*read, *reader][1:] == [Piece("Which table?", restarts=True, id="end")]

    def test_a_redis_that_is_away_is_an_error_and_reading_goes_on_after_it(
        self, turn: Turn, server: EmbeddedValkey
    ) -> None:
        turn.write(1, "Which ", restarts=True)
        reader = turn.handle.stream(timeout=60)
        first = next(reader)
        server.stop()
        with pytest.raises(MailboxUnavailableError):
            next(reader)
        server.start()
        turn.write(2, "table?", ends=True)
        turn.result("Which table?")

        assert texts(list(turn.handle.stream(after=first.id))) == ["table?"]
