"""A session that is kept between the turns of a drive: what a turn gets is what the store would give it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import pytest

from inturn.agent import Agent
from inturn.agent.hooks import Hooks
from inturn.agent.scripted import ScriptedProvider
from inturn.contract import Response
from inturn.persistence import MemoryAdapter, PersistenceManager
from inturn.persistence import kept as kept_module
from inturn.persistence.adapter import Loaded, Recorded
from inturn.persistence.kept import KeptSession
from inturn.session import SessionManager, TurnRecord


class Watched(MemoryAdapter):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        self.asked.append("load")
        return super().load(session_id, last_messages=last_messages, turn_id=turn_id)

    def recorded(self, session_id: str, turn_ids: Sequence[str]) -> Recorded:
        self.asked.append(f"recorded {' '.join(turn_ids)}")
        return super().recorded(session_id, turn_ids)

    def take(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


class Drive:
    """What a worker does with a session's turns, without the mailbox."""

    def __init__(self, store: Watched, agent: Agent, window: int = 50) -> None:
        self.memory = KeptSession()
        self.manager = PersistenceManager(store, history_window=window).keeping(self.memory)
        self.agent = agent

    def turn(self, turn_id: str, *behind: str, user_id: str | None = None) -> Response:
        self.memory.expect(behind)
        manager = self.manager if user_id is None else self.manager.acting_for(user_id)
        return self.agent.bind("s", persistence=manager, user_id=user_id).respond(turn_id, turn_id=turn_id)


@pytest.fixture
def store() -> Watched:
    return Watched()


@pytest.fixture
def seen() -> list[list[str]]:
    """The conversation that the model was shown, for each of its calls."""
    return []


@pytest.fixture
def agent(seen: list[list[str]]) -> Agent:
    return made(seen)


def made(seen: list[list[str]], **options: Any) -> Agent:
    def answer(request: Any) -> str:
        seen.append([each.content for each in request.messages])
        return f"to {request.messages[-1].content}"

    return Agent("Echo", provider=ScriptedProvider(answer), **options)


@pytest.fixture
def drive(store: Watched, agent: Agent) -> Drive:
    return Drive(store, agent)


def test_only_the_first_turn_loads_and_the_rest_are_looked_up_at_once(
    store: Watched, drive: Drive, seen: list[list[str]]
) -> None:
    drive.turn("t1")
    assert store.take() == ["load"]

    for number, behind in ((2, ["t3", "t4"]), (3, ["t4"]), (4, [])):
        drive.turn(f"t{number}", *behind)

    assert store.take() == ["recorded t2 t3 t4"]
    assert seen[-1] == ["t1", "to t1", "t2", "to t2", "t3", "to t3", "t4"]


@pytest.mark.parametrize("window", [0, 1, 3, 50])
def test_it_is_what_a_load_would_give(store: Watched, agent: Agent, window: int) -> None:
    drive = Drive(store, agent, window)
    drive.turn("t1")
    drive.turn("t2")

    taken = drive.manager.take_kept("s", "t3")

    assert taken == PersistenceManager(store, history_window=window).load_session_state("s")


def test_what_was_collected_has_been_through_the_store(drive: Drive) -> None:
    session = SessionManager(drive.manager, session_id="s")
    session.load(turn_id="t1")
    session.set_data({"day": date(2026, 3, 1)})
    session.commit([], TurnRecord(session_id="s", turn_id="t1"))

    taken = drive.manager.take_kept("s", "t2")

    assert taken is not None
    assert taken.data == {"day": "2026-03-01"}


def test_a_turn_that_was_committed_before_is_told_from_the_store(
    store: Watched, drive: Drive, seen: list[list[str]]
) -> None:
    first = drive.turn("t1")
    drive.turn("t2")
    calls = len(seen)

    again = drive.turn("t1")

    assert again == first
    assert len(seen) == calls


def test_what_others_wrote_before_a_turn_was_heard_of_is_seen(
    store: Watched, drive: Drive, seen: list[list[str]]
) -> None:
    drive.turn("t1")
    PersistenceManager(store).save_message(session_id="s", role="user", content="from elsewhere")

    drive.turn("t2")

    assert seen == [["t1"], ["t1", "to t1", "from elsewhere", "t2"]]


def test_what_others_write_later_makes_the_turn_begin_anew(
    store: Watched, drive: Drive, seen: list[list[str]]
) -> None:
    drive.turn("t1")
    drive.turn("t2", "t3")
    PersistenceManager(store).save_message(session_id="s", role="user", content="from elsewhere")

    drive.turn("t3")

    assert seen[-1] == ["t1", "to t1", "t2", "to t2", "from elsewhere", "t3"]
    found = store.load("s", last_messages=50)
    assert found is not None
    assert [each.content for each in found.messages] == [*seen[-1], "to t3"]


def test_an_erased_session_does_not_come_back(store: Watched, drive: Drive, seen: list[list[str]]) -> None:
    drive.turn("t1")
    drive.turn("t2", "t3")
    PersistenceManager(store).delete_session("s")

    drive.turn("t3")

    assert seen[-1] == ["t3"]


def changing(store: Watched) -> Callable[[Response], None]:
    def change(response: Response) -> None:
        PersistenceManager(store).update_collected_data("s", {"last": response.turn_id})

    return change


def test_the_hook_after_a_turn_may_change_the_session(store: Watched, seen: list[list[str]]) -> None:
    drive = Drive(store, made(seen, hooks=Hooks(after_respond=changing(store))))
    drive.turn("t1")
    drive.turn("t2", "t3")
    store.take()

    assert drive.turn("t3").data == {"last": "t2"}
    assert len(seen) == 3


def test_a_turn_from_outside_is_seen_by_the_next(store: Watched, drive: Drive, seen: list[list[str]]) -> None:
    drive.turn("t1")
    drive.turn("t2", "s1", "t3")
    drive.manager.save_turn("s", "s1", messages=[{"role": "user", "content": "saved"}])

    drive.turn("t3")

    assert seen[-1] == ["t1", "to t1", "t2", "to t2", "saved", "t3"]
    assert len(seen) == 3


def test_a_turn_that_fails_leaves_nothing_behind(store: Watched, seen: list[list[str]]) -> None:
    def fail(context: dict[str, Any]) -> None:
        if context["turn_id"] == "t2":
            raise RuntimeError

    drive = Drive(store, made(seen, hooks=Hooks(before_respond=fail)))
    drive.turn("t1")
    with pytest.raises(RuntimeError):
        drive.turn("t2", "t3")

    drive.turn("t3")

    assert seen[-1] == ["t1", "to t1", "t3"]
    assert len(seen) == 2


def test_it_is_not_kept_for_long(store: Watched, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "KEPT_SECONDS", 0.0)
    drive.turn("t1")
    store.take()

    drive.turn("t2")

    assert store.take() == ["load"]


@pytest.fixture(autouse=True)
def enough_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "KEPT_SECONDS", 3600.0)
    return
