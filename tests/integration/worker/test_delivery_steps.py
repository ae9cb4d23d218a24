"""Deliveries cut off, or paused, at every single step, and taken over by somebody else.

In one process, on a real Redis: an owner's calls of store, Redis and channel are counted, and at one of them
it dies or stands still, before the call has had its effect or after it.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, cast

import pytest
from redis import Redis

from inturn.channels import Channel, Limits, Received, Request
from inturn.contract import Response, TurnResult
from inturn.errors import StoreError
from inturn.persistence import Committed
from inturn.session import SessionState, create_session
from inturn.session.state import Delivery, TurnRecord
from inturn.settings import Settings, load_settings
from inturn.turns import Deliveries, Heartbeat, Mailbox
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from tests.stores import TroubledStore
from worker.delivery import deliver_all
from worker.runtime import Runtime

When = Literal["before", "after"]
REPLIES = {"s:1": "one", "s:2": "two a\n\ntwo b\n\ntwo c", "s:3": "three"}
PARTS = ["one", "two a", "two b", "two c", "three"]
MOST_STEPS = 200


class Notebook(Channel):
    """Sends into a list, in parts of at most six characters."""

    name: ClassVar[str] = "notebook"
    limits: ClassVar[Limits] = Limits(text=6)

    def __init__(self, repeats: bool) -> None:
        self.texts: list[str] = []
        self.repeats_unknown = repeats  # type: ignore[misc]
        self.on_send: Callable[[str], None] = lambda text: None
        self.name_of: Callable[[str], str] = lambda text: f"id-{len(self.texts)}"
        self.stops_at: str | None = None
        self.cannot_split: str | None = None

    def verify(self, request: Request) -> None: ...

    def receive(self, request: Request) -> Received:
        return Received()

    def send(self, address: Mapping[str, Any], text: str) -> str:
        self.texts.append(text)
        self.on_send(text)
        return self.name_of(text)

    def parts(self, text: str) -> list[str]:
        if text == self.cannot_split:
            raise ValueError(f"cannot split {text!r}")
        return super().parts(text)

    def may_send(self, session: SessionState, waiting: Sequence[str] = ()) -> str | None:
        return "opted out" if self.stops_at in waiting else None


class Death(BaseException):
    """The end of a process, as far as its own code can tell: nothing may catch it."""


class Steps:
    """Counts calls; `stop` is called with the name of that with this number, before or after its effect."""

    def __init__(self, at: int, when: When, stop: Callable[[str], None]) -> None:
        self._at, self._when, self._stop = at, when, stop
        self.names: list[str] = []

    def watch(self, target: Any, *names: str) -> Any:
        """A stand-in of `target` whose methods of these names are counted."""
        steps = self

        class Watched:
            def __getattr__(self, name: str) -> Any:
                found = getattr(target, name)
                return functools.partial(steps._call, name, found) if name in names else found

        return Watched()

    def _call(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        number = len(self.names)
        self.names.append(name)
        if (number, self._when) == (self._at, "before"):
            self._stop(name)
        answer = call(*args, **kwargs)
        if (number, self._when) == (self._at, "after"):
            self._stop(name)
        return answer


class Scene:
    """A session with three replies to deliver, and its owners."""

    def __init__(self, redis: Redis, settings: Settings, *, repeats: bool) -> None:
        self.redis, self.settings = redis, settings
        self.channel = Notebook(repeats)
        self.adapter = TroubledStore()
        self.deliveries = Deliveries(redis, settings)
        session = create_session("s")
        for turn_id, reply in REPLIES.items():
            session.outbox[turn_id] = Delivery(channel="notebook", address={"to": "me"})
            session = self.adapter.commit(
                session, expected_version=session.version, turn=record(turn_id, reply)
            ).session
            self.deliveries.offer("s", turn_id, "notebook")

    def end(self, turn_id: str, state: str, *, sent: int) -> None:
        """Deliver everything, and leave this one as if it had ended otherwise."""
        deliver_all(self.owner(), "s")
        loaded = self.adapter.load("s")
        assert loaded is not None
        session = loaded.session
        session.outbox[turn_id] = session.outbox[turn_id].model_copy(update={"state": state, "sent": sent})
        self.adapter.commit(session, expected_version=session.version)

    @property
    def outbox(self) -> dict[str, Delivery]:
        loaded = self.adapter.load("s")
        return {} if loaded is None else loaded.session.outbox

    def owner(self, steps: Steps | None = None) -> Runtime:
        """What one process holds."""
        steps = steps or Steps(-1, "before", lambda name: None)
        deliveries = SimpleNamespace(
            mailbox=steps.watch(self.deliveries.mailbox, "begin", "finish", "release", "renew_all", "offer"),
            outcomes=steps.watch(self.deliveries.outcomes, "note"),
            offer=self.deliveries.offer,
        )
        runtime = SimpleNamespace(
            app=SimpleNamespace(send_task=lambda *args, **kwargs: None),
            settings=self.settings,
            adapter=steps.watch(self.adapter, "load", "commit"),
            mailbox=steps.watch(Mailbox(self.redis, self.settings), "queue"),
            deliveries=deliveries,
            out_heartbeat=Heartbeat(self.deliveries.mailbox, 1.0),
            channels={"notebook": steps.watch(self.channel, "send", "parts")},
            prepare_store=lambda: None,
        )
        return cast(Runtime, runtime)

    def lapse(self) -> None:
        """Let the lease lapse, and the sleep end, that somebody has left behind."""
        state = Keys(f"{self.settings.key_prefix}-out").of_session("s")[3]
        self.redis.hdel(state, "owner", "until", "sleep")

    def run_to_the_end(self) -> None:
        """Another process takes over, and whoever is needed after it, until nothing waits."""
        for _ in range(20):
            self.lapse()
            deliver_all(self.owner(), "s")
            if not self.deliveries.mailbox.queue("s"):
                return
        raise AssertionError("the out mailbox is never empty")

    def check(self, *, late: bool = False) -> None:
        """Nothing is lost or doubled without a mark, nothing is out of order, and no mark is missing.

        With `late` one part was sent by an owner that had been taken over from.
        """
        texts, outbox = list(self.channel.texts), self.outbox
        if late:
            assert turn_of(texts.pop()) in {turn_id for turn_id, each in outbox.items() if marked(each)}
        assert [text for text, _ in itertools.groupby(texts)] == [part for part in PARTS if part in texts], (
            "out of order"
        )
        doubled = {text for text in texts if texts.count(text) > 1}
        lost = set(PARTS) - set(texts)
        doubtful = {turn_id for turn_id, each in outbox.items() if each.doubtful}
        unknown = {turn_id for turn_id, each in outbox.items() if each.state == "unknown"}
        assert {each.state for each in outbox.values()} <= {"sent", "unknown"}
        if self.channel.repeats_unknown:
            assert not lost
            assert not unknown
            assert {turn_of(text) for text in doubled} <= doubtful
        else:
            assert not doubled
            assert not doubtful
            assert {turn_of(text) for text in lost} <= unknown
        assert len(doubtful | unknown) <= 1
        told = {view.turn_id for view in self.deliveries.overview()}
        assert told == doubtful | unknown


def record(turn_id: str, reply: str) -> TurnRecord:
    response = Response(message=reply, session_id="s", turn_id=turn_id)
    result = TurnResult(kind="respond", session_id="s", turn_id=turn_id, response=response)
    return TurnRecord(session_id="s", turn_id=turn_id, result=result.model_dump(mode="json"))


def marked(delivery: Delivery) -> bool:
    return delivery.doubtful or delivery.state == "unknown"


def turn_of(text: str) -> str:
    return next(turn_id for turn_id, reply in REPLIES.items() if text in reply)


@pytest.fixture
def settings(redis_url: str, key_prefix: str) -> Settings:
    return load_settings(redis_url=redis_url, key_prefix=key_prefix, lease_seconds=30, retry_seconds=0.01)


@pytest.fixture
def make_scene(settings: Settings) -> Iterator[Callable[[bool], Scene]]:
    with connect(settings) as redis:

        def make(repeats: bool) -> Scene:
            for key in redis.scan_iter(f"{settings.key_prefix}-out:*"):
                redis.delete(key)
            return Scene(redis, settings, repeats=repeats)

        yield make


MakeScene = Callable[[bool], Scene]
both_kinds = pytest.mark.parametrize("repeats", [False, True], ids=["never repeats", "repeats unknown"])
both_times = pytest.mark.parametrize("when", ["before", "after"])


@both_kinds
def test_all_goes_out_once_and_in_order(make_scene: MakeScene, repeats: bool) -> None:
    scene = make_scene(repeats)

    deliver_all(scene.owner(), "s")

    assert scene.channel.texts == PARTS
    assert [(each.state, each.sent) for each in scene.outbox.values()] == [
        ("sent", 1),
        ("sent", 3),
        ("sent", 1),
    ]
    assert scene.outbox["s:2"].ids == ["id-2", "id-3", "id-4"]
    scene.check()


@both_kinds
@both_times
def test_an_owner_may_die_at_any_step(make_scene: MakeScene, repeats: bool, when: When) -> None:
    def die(name: str) -> None:
        raise Death(name)

    for number in range(MOST_STEPS):
        scene = make_scene(repeats)
        steps = Steps(number, when, die)
        try:
            deliver_all(scene.owner(steps), "s")
        except Death:
            pass
        else:
            assert number > 30, f"too few steps to mean anything: {steps.names}"
            break
        scene.run_to_the_end()
        scene.check()
    else:
        raise AssertionError("it never came to the end")


@both_kinds
@both_times
def test_an_owner_may_be_paused_at_any_step_while_another_takes_over(
    make_scene: MakeScene, repeats: bool, when: When
) -> None:
    for number in range(MOST_STEPS):
        scene = make_scene(repeats)
        paused, go_on = threading.Event(), threading.Event()
        where: list[str] = []

        def pause(
            name: str,
            paused: threading.Event = paused,
            go_on: threading.Event = go_on,
            where: list[str] = where,
        ) -> None:
            where.append(name)
            paused.set()
            assert go_on.wait(20)

        late = threading.Thread(target=deliver_all, args=(scene.owner(Steps(number, when, pause)), "s"))
        late.start()
        while late.is_alive() and not paused.wait(0.001):
            pass
        if not paused.is_set():
            assert number > 30
            break
        scene.run_to_the_end()
        go_on.set()
        late.join()
        scene.run_to_the_end()
        # Behind the last look at the lease nobody can see that it was lost: what was in hand then goes out.
        scene.check(late=(where[0], when) in (("renew_all", "after"), ("send", "before")))
    else:
        raise AssertionError("it never came to the end")


def both_steps(names: list[str]) -> Iterator[tuple[int, When]]:
    """Every place at which an owner may be stopped, as long as a run has steps."""
    for number in range(MOST_STEPS):
        if names and number >= len(names):
            return
        yield number, "before"
        yield number, "after"


@both_kinds
@pytest.mark.parametrize("breaks", [False, True], ids=["platform answers", "platform breaks off"])
def test_a_request_for_another_try_is_one_try_wherever_its_owner_dies(
    make_scene: MakeScene, repeats: bool, breaks: bool
) -> None:
    def die(name: str) -> None:
        raise Death(name)

    def break_off(text: str) -> None:
        raise ConnectionError

    longest: list[str] = []
    for number, when in both_steps(longest):
        scene = make_scene(repeats)
        scene.end("s:2", "unknown", sent=1)
        scene.channel.texts.clear()
        if breaks:
            scene.channel.on_send = break_off
        scene.deliveries.offer_again("s", "s:2")
        steps = Steps(number, when, die)
        try:
            deliver_all(scene.owner(steps), "s")
        except Death:
            pass
        else:
            longest[:] = steps.names
        scene.run_to_the_end()
        asked_for, texts = scene.outbox["s:2"], scene.channel.texts
        assert asked_for.doubtful
        assert [text for text, _ in itertools.groupby(texts)] == ["two b", "two c"][: len(set(texts))]
        assert asked_for.state in (("unknown",) if breaks else ("sent",) if repeats else ("sent", "unknown"))
        assert states_told(scene) == {"s:2": asked_for.state}
        if not repeats:
            assert len(texts) == len(set(texts)), "one request was two tries"
        elif breaks:
            assert len(texts) <= scene.settings.max_attempts
    assert len(longest) > (5 if breaks else 10)


def test_what_has_arrived_is_not_sent_again_on_request(make_scene: MakeScene) -> None:
    scene = make_scene(False)
    scene.run_to_the_end()
    scene.deliveries.offer_again("s", "s:2")
    scene.deliveries.offer_again("s", "s:9")
    scene.run_to_the_end()

    assert scene.channel.texts == PARTS
    scene.check()


@pytest.mark.parametrize("lost_answers", [0, 3])
def test_a_store_that_goes_away_while_a_part_is_out_is_told_when_it_is_back(
    make_scene: MakeScene, lost_answers: int
) -> None:
    scene = make_scene(False)

    def break_down(text: str) -> None:
        if text == "two b":
            scene.adapter.failing.update({"load", "commit"})
            threading.Timer(0.7, scene.adapter.failing.clear).start()
            scene.adapter.lost_answers = lost_answers

    scene.channel.on_send = break_down
    deliver_all(scene.owner(), "s")

    assert scene.channel.texts == PARTS
    scene.check()


def test_a_store_that_is_away_uses_up_no_attempt(make_scene: MakeScene) -> None:
    scene = make_scene(False)
    scene.adapter.failing.update({"load", "commit"})
    for _ in range(40):
        scene.lapse()
        deliver_all(scene.owner(), "s")
    scene.adapter.failing.clear()
    scene.run_to_the_end()

    assert scene.channel.texts == PARTS
    scene.check()


def test_whoever_may_not_be_written_to_gets_no_further_part(make_scene: MakeScene) -> None:
    scene = make_scene(False)
    mailbox = Mailbox(scene.redis, scene.settings)

    def opt_out(text: str) -> None:
        if text == "two a":
            mailbox.offer("s", "s:stop", "a turn that is not committed yet")

    scene.channel.on_send = opt_out
    scene.channel.stops_at = "s:stop"
    deliver_all(scene.owner(), "s")

    assert scene.channel.texts == ["one", "two a"]
    assert {turn_id: (each.state, each.error) for turn_id, each in scene.outbox.items()} == {
        "s:1": ("sent", None),
        "s:2": ("failed", "opted out"),
        "s:3": ("failed", "opted out"),
    }
    mailbox.cancel("s", "s:stop")


def test_a_reply_that_the_channel_cannot_split_fails_alone(make_scene: MakeScene) -> None:
    scene = make_scene(False)
    scene.channel.limits = Limits(text=3)  # type: ignore[misc]
    scene.channel.cannot_split = "three"
    deliver_all(scene.owner(), "s")

    assert scene.outbox["s:1"].state == "sent"
    assert (scene.outbox["s:3"].state, scene.outbox["s:3"].error) == ("failed", "ValueError")


def test_a_delivery_whose_session_cannot_be_written_is_given_up_and_blocks_no_other(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(False)
    commit = scene.adapter.commit

    def refuse(session: SessionState, *args: Any, **kwargs: Any) -> Committed:
        if session.outbox["s:2"].state != "waiting":
            raise StoreError("this row cannot be written")
        return commit(session, *args, **kwargs)

    monkeypatch.setattr(scene.adapter, "commit", refuse)
    scene.run_to_the_end()

    assert scene.channel.texts == ["one", "three"]
    assert states_told(scene) == {"s:2": "failed"}


def test_a_note_that_nobody_can_read_blocks_no_other(make_scene: MakeScene) -> None:
    scene = make_scene(False)
    scene.deliveries.mailbox.offer("s", "s:8", "nonsense")
    scene.deliveries.offer("s", "s:9", "notebook")  # of a turn that the session does not have
    scene.run_to_the_end()

    assert scene.channel.texts == PARTS
    scene.check()


def test_platforms_that_name_parts_in_ways_no_store_can_keep_do_no_harm(make_scene: MakeScene) -> None:
    scene = make_scene(False)
    scene.channel.name_of = lambda text: f"\x00{text}\ud800" + "x" * 1000
    deliver_all(scene.owner(), "s")

    assert scene.channel.texts == PARTS
    assert scene.outbox["s:1"].ids[0].startswith("one\ufffdx")
    scene.check()


def test_many_replies_of_one_session_make_room_for_others(make_scene: MakeScene) -> None:
    scene = make_scene(False)
    published: list[dict[str, Any]] = []
    owner = scene.owner()
    told = SimpleNamespace(
        send_task=lambda *args, **kwargs: published.append(kwargs),
        conf=SimpleNamespace(broker_write_url=scene.settings.broker),
    )
    owner.app = cast(Any, told)
    owner.settings = scene.settings.model_copy(update={"drive_turns": 2})
    deliver_all(owner, "s")

    assert scene.channel.texts == PARTS[:4]
    assert [(each["kwargs"], each["queue"]) for each in published] == [({"session_id": "s"}, "delivery")]
    deliver_all(owner, "s")
    assert scene.channel.texts == PARTS


def states_told(scene: Scene) -> dict[str, str]:
    return {view.turn_id: view.state for view in scene.deliveries.overview()}
