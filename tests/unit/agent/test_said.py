"""Several messages that are answered in one turn: what the model reads, what is kept, who is known after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from inturn import Agent
from inturn.agent import Hooks, ModelRequest, Said, ScriptedProvider
from inturn.contract import Response, TurnFault
from inturn.errors import InvalidInputError, ProviderError, SessionConflictError
from inturn.persistence import MemoryAdapter, MessageQuery, PersistenceManager
from inturn.session.state import Message, TurnRecord

IMAGE = "https://example.org/table.png"
FAULT = TurnFault(type="ProviderError", message="no")
FURTHER = [Said("two", "t2", {"from": "slack"}), Said("three", "t3", images=[IMAGE])]


@pytest.fixture
def store() -> MemoryAdapter:
    return MemoryAdapter()


@pytest.fixture
def make(store: MemoryAdapter) -> Callable[..., Agent]:
    def make(*replies: Any, **options: Any) -> Agent:
        provider = ScriptedProvider(list(replies) or [{"message": "hello"}])
        return Agent("Front desk", provider=provider, persistence=store, session_id="s", **options)

    return make


def requests(agent: Agent) -> list[ModelRequest]:
    provider = agent._definition.provider
    assert isinstance(provider, ScriptedProvider)
    return provider.requests


def rows(store: MemoryAdapter) -> list[Message]:
    return list(store.find_messages(MessageQuery(session_id="s")).items)


def record(store: MemoryAdapter, turn_id: str) -> TurnRecord | None:
    found = store.load("s", turn_id=turn_id)
    return None if found is None else found.turn


def journal(store: MemoryAdapter) -> dict[str, Any]:
    found = store.load("s")
    assert found is not None
    return found.session.journal


def test_the_model_reads_them_as_one_message_line_by_line(make: Callable[..., Agent]) -> None:
    bot = make()

    bot.respond("one", turn_id="t1", images=[IMAGE], further=FURTHER)

    message = requests(bot)[0].messages[-1]
    assert message.content == "one\ntwo\nthree"
    assert message.images == [IMAGE, IMAGE]


def test_the_history_has_each_of_them_as_it_came(make: Callable[..., Agent], store: MemoryAdapter) -> None:
    make().respond("one", turn_id="t1", metadata={"from": "web"}, further=FURTHER)

    *said, reply = rows(store)
    assert [(row.content, row.turn_id, row.event) for row in said] == [
        ("one", "t1", {"metadata": {"from": "web"}}),
        ("two", "t2", {"metadata": {"from": "slack"}, "merged_into": "t1"}),
        ("three", "t3", {"images": [IMAGE], "merged_into": "t1"}),
    ]
    assert (reply.role, reply.turn_id) == ("assistant", "t1")


def test_each_of_them_is_answered_from_the_store_ever_after(
    make: Callable[..., Agent], store: MemoryAdapter
) -> None:
    reply = make().respond("one", turn_id="t1", further=FURTHER)
    later = make()

    assert [later.respond("x", turn_id=turn_id) for turn_id in ("t1", "t2", "t3")] == [reply] * 3
    assert requests(later) == []
    assert len(rows(store)) == 4
    assert journal(store) == {}


def test_the_same_turn_again_changes_nothing(make: Callable[..., Agent], store: MemoryAdapter) -> None:
    reply = make().respond("one", turn_id="t1", further=FURTHER)
    again = make()

    assert again.respond("one", turn_id="t1", further=FURTHER) == reply
    assert requests(again) == []
    assert len(rows(store)) == 4


@pytest.mark.parametrize("first", ["t2", "t3"])
def test_a_process_that_dies_right_after_the_commit_leaves_them_known(
    first: str, make: Callable[..., Agent], store: MemoryAdapter
) -> None:
    class Died(BaseException):
        pass

    def die(response: Response) -> None:
        raise Died

    with pytest.raises(Died):
        make(hooks=Hooks(after_respond=die)).respond("one", turn_id="t1", further=FURTHER)
    assert record(store, "t1") is not None
    assert record(store, "t2") is None
    assert set(journal(store)) == {"t2", "t3"}

    later = make()
    answers = [later.respond("x", turn_id=turn_id) for turn_id in (first, "t2", "t3")]

    assert [answer.turn_id for answer in answers] == ["t1"] * 3
    assert requests(later) == []
    assert len(rows(store)) == 4
    assert journal(store) == {}


def test_a_turn_that_fails_keeps_none_of_them(make: Callable[..., Agent], store: MemoryAdapter) -> None:
    with pytest.raises(ProviderError):
        make(ProviderError()).respond("one", turn_id="t1", further=FURTHER)

    assert store.load("s") is None


def test_a_turn_that_is_given_up_keeps_all_of_them(make: Callable[..., Agent], store: MemoryAdapter) -> None:
    bot = make()

    failed = bot.record_failure("one", FAULT, turn_id="t1", further=FURTHER)

    assert failed.finish_reason == "failed"
    *said, reply = rows(store)
    assert [row.content for row in said] == ["one", "two", "three"]
    assert reply.content == failed.message
    for turn_id in ("t1", "t2", "t3"):
        assert bot.record_failure("x", FAULT, turn_id=turn_id) == failed
    assert len(rows(store)) == 4


def test_a_stream_takes_them_too(make: Callable[..., Agent], store: MemoryAdapter) -> None:
    with make().stream("one", turn_id="t1", further=FURTHER) as stream:
        assert "".join(piece.text for piece in stream) == "hello"

    assert [row.content for row in rows(store)] == ["one", "two", "three", "hello"]


def test_without_saving_by_itself_no_turn_is_known(make: Callable[..., Agent], store: MemoryAdapter) -> None:
    bot = make(auto_save=False)

    bot.respond("one", turn_id="t1", further=FURTHER)
    bot.session.save()

    assert [row.content for row in rows(store)] == ["one", "two", "three", "hello"]
    assert record(store, "t2") is None


@pytest.mark.parametrize(
    ("further", "words"),
    [
        (Said("two"), "turn ID"),
        (Said("two", ""), "turn ID"),
        (Said("a\x00b", "t2"), "NUL"),
        (Said("two", "t2", {"a": float("nan")}), "metadata"),
        (Said("two", "t2", images=["file:///etc/passwd"]), "https: URL"),
        (Said("two", "t1"), "an? turn ID of its own"),
        (Said(["two"], "t2"), "must be a string"),  # type: ignore[arg-type]
    ],
)
def test_what_no_store_can_keep_is_refused_before_the_model_is_asked(
    further: Said, words: str, make: Callable[..., Agent], store: MemoryAdapter
) -> None:
    bot = make()

    with pytest.raises(InvalidInputError, match=words):
        bot.respond("one", turn_id="t1", further=[further])

    assert requests(bot) == []
    assert store.load("s") is None


def test_what_others_write_meanwhile_does_not_keep_them_from_being_known(
    store: MemoryAdapter, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Agent]
) -> None:
    commit = store.commit
    conflicts = iter([True, False, True, False])

    def contended(session: Any, messages: Any = (), **given: Any) -> Any:
        turn = given.get("turn")
        if turn is not None and turn.turn_id in ("t2", "t3") and next(conflicts, False):
            raise SessionConflictError(session.id, session.version, session.version + 1)
        return commit(session, messages, **given)

    monkeypatch.setattr(store, "commit", contended)
    reply = make().respond("one", turn_id="t1", further=FURTHER)

    for turn_id in ("t2", "t3"):
        known = record(store, turn_id)
        assert known is not None
        assert known.result["turn_id"] == turn_id
        assert known.result["response"]["turn_id"] == reply.turn_id == "t1"
    assert journal(store) == {}


@pytest.mark.parametrize("known", ["t1", "t2", "t3"])
def test_a_message_that_was_answered_before_is_left_out_and_no_other_is(
    known: str, make: Callable[..., Agent], store: MemoryAdapter
) -> None:
    # Redis had forgotten it, it came again, and new messages of the user were merged with it.
    before = make({"message": "long ago"}).respond("old", turn_id=known)
    bot = make()

    response = bot.respond("one", turn_id="t1", further=FURTHER)

    open_ids = [turn_id for turn_id in ("t1", "t2", "t3") if turn_id != known]
    assert (response.message, response.turn_id) == ("hello", open_ids[0])
    _, _, *said, reply = rows(store)
    assert [row.turn_id for row in said] == open_ids
    assert requests(bot)[0].messages[-1].content == "\n".join(row.content for row in said)
    assert reply.turn_id == open_ids[0]
    assert {turn_id: bot.respond("x", turn_id=turn_id) for turn_id in (known, *open_ids)} == {
        known: before,
        **dict.fromkeys(open_ids, response),
    }


@pytest.mark.parametrize("known", ["t1", "t2", "t3"])
def test_a_message_that_somebody_else_answers_meanwhile_is_left_out_and_no_other_is(
    known: str, make: Callable[..., Agent], store: MemoryAdapter
) -> None:
    other = make({"message": "faster"})
    raced: list[Response] = []

    def race(context: dict[str, Any]) -> None:
        if not raced:
            raced.append(other.respond("old", turn_id=known))

    bot = make({"message": "slow"}, {"message": "slow again"}, hooks=Hooks(before_respond=race))

    response = bot.respond("one", turn_id="t1", further=FURTHER)

    assert response.message == "slow again"
    assert [row.turn_id for row in rows(store) if row.role == "user"] == [
        known,
        *(turn_id for turn_id in ("t1", "t2", "t3") if turn_id != known),
    ]


def test_a_session_that_ends_meanwhile_leaves_nothing_to_note(store: MemoryAdapter) -> None:
    PersistenceManager(store).note_merged("s")

    assert store.load("s") is None
