"""What one reader is told of a turn, and how many readers are served together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from inturn.contract import Response, TurnFault, TurnResult
from inturn.errors import MailboxUnavailableError
from inturn.turns import Entry, Place, Sight, TurnView
from producer import watch as watching
from producer import watcher as watchers
from producer.watch import Event, Watch
from producer.watcher import Watcher

WAITS, RUNS, GONE = TurnView("waiting", 2), TurnView("running", 0), TurnView("done", 0)


def result(message: str = "", error: TurnFault | None = None) -> TurnResult:
    return TurnResult(
        kind="respond",
        session_id="s",
        turn_id="s:1",
        state="failed" if error else "done",
        response=Response(message=message, session_id="s", turn_id="s:1"),
        error=error,
    )


def entries(*texts: str, start: int = 1) -> list[Entry]:
    return [
        Entry(7, number, text, restarts=number == 1, ends=False) for number, text in enumerate(texts, start)
    ]


def taken(watch: Watch) -> list[Event]:
    """All events that are there now."""

    async def take() -> list[Event]:
        found = []
        while (event := await watch.next_event(0.001)) is not None:
            found.append(event)
        return found

    return asyncio.run(take())


def test_a_state_is_told_when_it_changes_and_only_then() -> None:
    watch = Watch("s", "s:1")
    for view in (WAITS, WAITS, TurnView("waiting", 1), RUNS, RUNS):
        watch.see(Sight(None, [], view))

    assert [event.data for event in taken(watch)] == [
        {"status": "waiting", "ahead": 2},
        {"status": "waiting", "ahead": 1},
        {"status": "running", "ahead": 0},
    ]


def test_text_is_told_once_and_looked_for_behind_what_was_told() -> None:
    watch = Watch("s", "s:1")
    watch.see(Sight(None, entries("a", "b"), RUNS))
    assert watch.place == Place("s", "s:1", "7-2")
    watch.see(Sight(result("abc"), entries("c", start=3), GONE))

    told = [event for event in taken(watch) if event.kind != "state"]
    assert [(event.kind, event.id) for event in told] == [
        ("piece", "7-1"),
        ("piece", "7-2"),
        ("piece", "7-3"),
        ("done", "done"),
    ]
    assert watch.is_over


def test_a_turn_with_more_text_than_one_look_shows_is_not_over_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_READ", 2)
    watch = Watch("s", "s:1")
    watch.see(Sight(result("abc"), entries("a", "b"), GONE))
    assert not watch.is_over

    watch.see(Sight(result("abc"), entries("c", start=3), GONE))
    assert "".join(event.data["text"] for event in taken(watch) if event.kind == "piece") == "abc"
    assert watch.is_over


def test_a_turn_is_not_looked_at_while_its_reader_has_enough_unread() -> None:
    watch = Watch("s", "s:1")
    watch.see(Sight(None, entries(*"x" * watching.MOST_UNREAD), RUNS))
    assert watch.next_look == float("inf")

    taken(watch)
    assert watch.next_look < float("inf")


def test_a_turn_that_has_left_without_a_result_is_given_up_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = Watch("s", "s:1")
    watch.see(Sight(None, [], GONE))
    watch.see(Sight(None, [], GONE))
    assert not watch.is_over, "whoever drops a turn stores its result after that"

    monkeypatch.setattr(watching, "GONE_SECONDS", 0.0)
    watch.see(Sight(None, [], GONE))
    (last,) = taken(watch)
    assert (last.kind, last.data["status"]) == ("failed", "unknown")


def test_a_failed_turn_ends_with_why() -> None:
    watch = Watch("s", "s:1")
    watch.see(Sight(result(error=TurnFault(type="TurnCancelledError", message="dropped")), [], GONE))

    (last,) = taken(watch)
    assert (last.kind, last.data["status"], last.data["error"]) == ("failed", "cancelled", "dropped")


class Looks:
    """A client that says what is there, counts how often it is asked, and chokes on some turns."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.poison: set[str] = set()
        self.results: dict[str, TurnResult] = {}
        self.is_away = False

    def look(self, places: Sequence[Place]) -> list[Sight]:
        self.asked.append(len(places))
        if self.is_away:
            raise MailboxUnavailableError
        if any(place.turn_id in self.poison for place in places):
            raise ValueError("not to be read")
        return [Sight(self.results.get(place.turn_id), [], WAITS) for place in places]


class TestWatcher:
    @pytest.fixture
    def looks(self) -> Looks:
        return Looks()

    @pytest.fixture
    def watcher(self, looks: Looks) -> Watcher:
        return Watcher(looks)  # type: ignore[arg-type]

    def run(self, watcher: Watcher, *watches: Watch, timeout: float = 5.0) -> list[TurnResult | None]:
        """Watch all of these until each is over."""

        async def wait(watch: Watch) -> TurnResult | None:
            with watcher.watching(watch, "ada"):
                return await watch.end(timeout)

        async def run() -> list[TurnResult | None]:
            task = asyncio.create_task(watcher.run())
            try:
                return await asyncio.gather(*map(wait, watches))
            finally:
                task.cancel()

        return asyncio.run(run())

    def test_all_turns_are_looked_at_together(self, watcher: Watcher, looks: Looks) -> None:
        looks.results = {f"s:{number}": result("hi") for number in range(500)}

        found = self.run(watcher, *(Watch("s", f"s:{number}") for number in range(500)))

        assert all(found)
        assert looks.asked == [500]
        assert len(watcher) == 0

    def test_while_nobody_reads_nothing_is_asked(self, watcher: Watcher, looks: Looks) -> None:
        async def idle() -> None:
            task = asyncio.create_task(watcher.run())
            await asyncio.sleep(0.2)
            task.cancel()

        asyncio.run(idle())
        assert looks.asked == []

    def test_a_result_that_cannot_be_read_blinds_nobody_else(self, watcher: Watcher, looks: Looks) -> None:
        looks.poison = {"s:bad"}
        looks.results = {"s:good": result("hi")}
        bad, good = Watch("s", "s:bad"), Watch("s", "s:good")

        assert self.run(watcher, bad, good) == [None, result("hi")]
        assert bad.is_over

    def test_readers_wait_while_redis_is_away(
        self, watcher: Watcher, looks: Looks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watchers, "OUTAGE_PAUSE", 0.05)
        looks.is_away, looks.results = True, {"s:1": result("hi")}

        async def come_back() -> None:
            while len(looks.asked) < 3:
                await asyncio.sleep(0.01)
            looks.is_away = False

        async def run() -> TurnResult | None:
            tasks = [asyncio.create_task(watcher.run()), asyncio.create_task(come_back())]
            with watcher.watching(Watch("s", "s:1"), None) as watch:
                found = await watch.end(5)
            tasks[0].cancel()
            return found

        assert asyncio.run(run()) == result("hi")

    def test_one_user_takes_no_more_than_their_share(
        self, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watchers, "MOST_OF_ONE_USER", 2)
        monkeypatch.setattr(watchers, "MOST_WATCHES", 3)
        first, second = (watcher.watching(Watch("s", "s:1"), "ada") for _ in range(2))
        with first, second:
            assert not watcher.has_room("ada")
            assert watcher.has_room("bob")
            with watcher.watching(Watch("s", "s:1"), None):
                assert not watcher.has_room("bob")
                assert not watcher.has_room(None)
        assert watcher.has_room("ada")

    def test_a_watcher_that_is_closed_lets_everybody_go(self, watcher: Watcher) -> None:
        with watcher.watching(Watch("s", "s:1"), None) as before:
            watcher.close()
            assert before.is_over
        with watcher.watching(Watch("s", "s:1"), None) as after:
            assert after.is_over
        assert not watcher.has_room(None)
