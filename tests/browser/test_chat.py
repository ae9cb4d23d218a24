"""The chat page: what a person sees and does, through a real browser, web process, worker and Valkey."""

from __future__ import annotations

import threading

import pytest
from playwright.sync_api import Route, expect

from tests.agents import let_go, read_journal, reply_to
from tests.browser.chat import Chat
from tests.browser.conftest import House
from tests.waiting import wait_until

pytestmark = pytest.mark.process


def calls(house: House, *texts: str) -> list[str]:
    """The model's calls for these messages, in order."""
    return [call.text for call in read_journal(house.journal) if call.text in texts]


def test_text_appears_while_the_reply_is_written(house: House, chat: Chat) -> None:
    chat.say("one pause two")

    chat.expect_said("one pause two", "you said: one ")
    chat.expect_states("writing")
    let_go(house.journal)

    chat.expect_said("one pause two", "you said: one pause two")
    chat.expect_states()
    assert chat.history(house.store) == ["one pause two", "you said: one pause two"]


def test_messages_sent_in_a_row_wait_for_their_turns_in_order(house: House, chat: Chat) -> None:
    for text in ("first pause", "second", "third"):
        chat.say(text)
    chat.expect_states("writing", "queued behind 1", "queued behind 2")
    chat.button("Withdraw").first.click()
    chat.expect_states("writing", "withdrawn", "queued behind 1")
    let_go(house.journal)

    chat.expect_said("first pause", "you said: first pause", "second", "third", "you said: third")
    chat.expect_states("withdrawn")


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_a_reply_is_stopped_and_the_next_message_has_its_turn(how: str, house: House, chat: Chat) -> None:
    endless = "slowly 0.05 count 2000"
    chat.say(endless)
    expect(chat.replies).to_contain_text(" 1 2 3")
    chat.say("and now?")
    if how == "button":
        chat.button("Stop").click()
    else:
        chat.box.press(how)

    chat.expect_states("stopped")
    expect(chat.replies).to_have_count(2)
    expect(chat.replies.last).to_have_text("you said: and now?")
    expect(chat.button("Stop")).to_be_hidden()
    said = [text.text_content() or "" for text in chat.said.all()]
    assert reply_to(endless).startswith(said[1])
    assert chat.history(house.store) == said


def test_a_reply_is_thought_about_before_it_is_written(chat: Chat) -> None:
    chat.say("sleep 1")
    chat.expect_states("thinking")
    expect(chat.button("Stop")).to_be_visible()

    chat.expect_said("sleep 1", "you said: sleep 1")


def test_a_page_that_is_loaded_again_goes_on_with_what_runs_and_waits(house: House, chat: Chat) -> None:
    chat.say("hello")
    chat.expect_said("hello", "you said: hello")
    chat.say("loaded pause again")
    chat.say("next")
    chat.expect_states("writing", "queued behind 1")
    chat.page.reload()

    chat.expect_said("hello", "you said: hello", "loaded pause again", "you said: loaded ", "next")
    chat.expect_states("writing", "queued behind 1")
    let_go(house.journal)

    whole = [
        "hello",
        "you said: hello",
        "loaded pause again",
        "you said: loaded pause again",
        "next",
        "you said: next",
    ]
    chat.expect_said(*whole)
    chat.expect_states()
    chat.page.reload()
    chat.expect_said(*whole)
    assert calls(house, "loaded pause again") == ["loaded pause again"]


def test_a_reply_that_ended_while_nobody_looked_is_there_once(house: House, chat: Chat) -> None:
    chat.say("unseen pause")
    chat.expect_said("unseen pause", "you said: unseen ")
    session_id = chat.session_id
    chat.page.goto("about:blank")
    let_go(house.journal)
    wait_until(lambda: house.store.load(session_id))
    chat.page.go_back()

    chat.expect_said("unseen pause", "you said: unseen pause")
    chat.expect_states()


def test_a_message_is_sent_once_however_often_one_clicks(house: House, chat: Chat) -> None:
    chat.box.fill("clicked")
    chat.button("Send").dblclick()
    chat.box.fill("entered")
    chat.page.keyboard.press("Enter")
    chat.page.keyboard.press("Enter")

    chat.expect_said("clicked", "you said: clicked", "entered", "you said: entered")
    assert calls(house, "clicked", "entered") == ["clicked", "entered"]


@pytest.mark.parametrize("reloads", [False, True], ids=["the page stays", "the page is loaded again"])
def test_a_message_whose_answer_was_lost_is_sent_again_and_is_the_same(
    reloads: bool, house: House, chat: Chat
) -> None:
    text = f"lost {reloads}"
    keys: list[str] = []
    broken = threading.Event()
    broken.set()

    def lose_the_answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if broken.is_set():
            route.fetch()
            route.abort()
        else:
            route.continue_()

    chat.page.route("**/turns", lose_the_answer)
    chat.say(text)
    chat.expect_states("not sent yet")
    if reloads:
        chat.page.reload()
    else:
        with chat.page.expect_request("**/turns"):
            pass
    broken.clear()

    chat.expect_said(text, f"you said: {text}")
    assert len(set(keys)) == 1
    assert calls(house, text) == [text]


def test_what_is_written_offline_is_kept_and_sent_once_later(house: House, chat: Chat) -> None:
    chat.context.set_offline(True)
    chat.say("offline 1")
    chat.say("offline 2")
    expect(chat.connection).to_have_text("Offline: reconnecting")
    chat.expect_states("not sent yet", "sending")
    chat.context.set_offline(False)

    chat.expect_said("offline 1", "you said: offline 1", "offline 2", "you said: offline 2")
    expect(chat.connection).to_have_text("")
    assert calls(house, "offline 1", "offline 2") == ["offline 1", "offline 2"]


def test_a_message_that_was_not_sent_outlives_the_page(house: House, chat: Chat) -> None:
    broken = threading.Event()
    broken.set()
    chat.page.route("**/turns", lambda route: route.abort() if broken.is_set() else route.continue_())
    chat.say("outlives")
    chat.expect_states("not sent yet")
    chat.page.reload()
    chat.expect_states("not sent yet")
    chat.expect_said("outlives")
    broken.clear()

    chat.expect_said("outlives", "you said: outlives")
    assert calls(house, "outlives") == ["outlives"]


def test_a_turn_that_fails_for_now_says_so_and_comes_to_its_reply(house: House, chat: Chat) -> None:
    chat.say("sleep 0.5 overloaded")
    chat.expect_states("trying again")
    let_go(house.journal)

    chat.expect_said("sleep 0.5 overloaded", "you said: sleep 0.5 overloaded")
    chat.expect_states()


def test_how_a_reply_ended_is_still_said_when_the_page_is_loaded_again(chat: Chat) -> None:
    chat.say("refused")
    chat.expect_said("refused", "Sorry, that did not work.")
    chat.say("stopped slowly 0.05 count 2000")
    expect(chat.replies.last).to_contain_text(" 1 2 3")
    chat.button("Stop").click()
    chat.expect_states("failed", "stopped")
    said = chat.said.all_text_contents()
    chat.page.reload()

    chat.expect_said(*said)
    chat.expect_states("failed", "stopped")


@pytest.mark.parametrize(
    ("second", "reply", "states"),
    [
        ("second", "you said: second\nthird", []),
        ("refused", "Sorry, that did not work.", ["failed"]),
    ],
    ids=["answered", "failed"],
)
def test_messages_that_are_answered_together_have_one_reply_behind_the_last(
    second: str, reply: str, states: list[str], house: House, chat: Chat
) -> None:
    chat.say("first pause")
    chat.expect_states("writing")
    for text in (second, "third"):
        house.client.respond(chat.session_id, text, stream=True, overlap="merge")
    chat.page.reload()
    chat.expect_states("writing", "queued behind 1", "queued behind 2")
    let_go(house.journal)

    for _ in range(2):
        chat.expect_said("first pause", "you said: first pause", second, "third", reply)
        chat.expect_states(*states)
        chat.page.reload()


def test_new_conversations_begin_empty_and_back_leads_to_the_one_before(chat: Chat) -> None:
    chat.say("hello")
    chat.expect_said("hello", "you said: hello")
    chat.button("New conversation").click()
    expect(chat.page.get_by_text("Write a message to begin.")).to_be_visible()
    chat.say("another")
    chat.expect_said("another", "you said: another")

    chat.page.go_back()
    chat.expect_said("hello", "you said: hello")
    chat.page.go_forward()
    chat.expect_said("another", "you said: another")


def test_a_reply_goes_on_after_one_has_looked_at_another_conversation(house: House, chat: Chat) -> None:
    chat.say("away pause and back")
    chat.expect_said("away pause and back", "you said: away ")
    chat.button("New conversation").click()
    chat.expect_said()
    let_go(house.journal)
    chat.page.go_back()

    chat.expect_said("away pause and back", "you said: away pause and back")


def test_what_was_said_elsewhere_and_long_ago_is_there_too(house: House, chat: Chat) -> None:
    lines = [{"role": "user", "content": f"line {number}"} for number in range(80)]
    house.client.save_session(chat.session_id, messages=lines).get()
    house.client.respond(chat.session_id, "elsewhere pause", stream=True)
    chat.page.reload()

    expect(chat.said).to_have_count(52)
    expect(chat.said.nth(50)).to_have_text("A message from elsewhere")
    expect(chat.said.last).to_have_text("you said: elsewhere ")
    chat.button("Show earlier messages").click()
    expect(chat.said).to_have_count(82)
    expect(chat.said.first).to_have_text("line 0")
    expect(chat.button("Show earlier messages")).to_be_hidden()
    let_go(house.journal)

    expect(chat.said.nth(80)).to_have_text("elsewhere pause")
    expect(chat.said.last).to_have_text("you said: elsewhere pause")
