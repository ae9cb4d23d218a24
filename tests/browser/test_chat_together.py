"""The chat page in two tabs, on two devices, and beside programs that write to the same session."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.agents import let_go, reply_to
from tests.browser.chat import Chat
from tests.browser.conftest import House, OpenChat
from tests.waiting import wait_until

pytestmark = pytest.mark.process


def test_what_is_said_in_one_tab_is_written_in_the_other_too(
    house: House, chat: Chat, open_chat: OpenChat
) -> None:
    beside = open_chat(house.web, beside=chat)
    chat.say("one pause two")
    for tab in (chat, beside):
        tab.expect_said("one pause two", "you said: one ")
        tab.expect_states("writing")
    beside.say("three")
    for tab in (chat, beside):
        tab.expect_said("one pause two", "you said: one ", "three")
        tab.expect_states("writing", "queued behind 1")
    let_go(house.journal)

    for tab in (chat, beside):
        tab.expect_said("one pause two", "you said: one pause two", "three", "you said: three")
        tab.expect_states()


def test_the_order_of_acceptance_counts_and_not_that_of_writing(
    house: House, chat: Chat, open_chat: OpenChat
) -> None:
    chat.page.route("**/turns", lambda route: route.abort())
    chat.say("written first")
    chat.expect_states("not sent yet")
    session_id = chat.session_id
    house.client.respond(session_id, "accepted first pause", turn_id="theirs", stream=True)
    entry = {"key": "theirs", "text": "accepted first pause", "at": 2**50, "id": f"{session_id}:theirs"}
    name = f"inturn.sent/{session_id}/theirs"
    chat.page.evaluate("([name, entry]) => localStorage.setItem(name, JSON.stringify(entry))", [name, entry])
    chat.page.reload()
    chat.expect_said("written first", "accepted first pause", "you said: accepted first ")
    chat.page.unroute("**/turns")
    chat.expect_said("accepted first pause", "you said: accepted first ", "written first")
    let_go(house.journal)

    whole = [
        "accepted first pause",
        "you said: accepted first pause",
        "written first",
        "you said: written first",
    ]
    chat.expect_said(*whole)
    assert chat.history(house.store) == whole


def test_two_devices_that_talk_at_once_show_what_the_store_has(
    house: House, chat: Chat, open_chat: OpenChat
) -> None:
    chat.say("hello")
    chat.expect_said("hello", "you said: hello")
    other = open_chat(house.web, at=chat)
    other.expect_said("hello", "you said: hello")
    texts = [f"{name} {number}" for number in range(4) for name in ("phone", "desk")]
    for text in texts:
        (chat if "desk" in text else other).say(text)
    wait_until(lambda: len(chat.history(house.store)) == 2 + 2 * len(texts), timeout=60)

    whole = chat.history(house.store)
    assert sorted(whole[2::2]) == sorted(texts)
    assert whole[1::2] == [reply_to(text) for text in whole[::2]]
    for device in (chat, other):
        device.expect_said(*whole)
        device.expect_states()


def test_a_reply_to_another_device_is_followed_before_ones_own(
    house: House, chat: Chat, open_chat: OpenChat
) -> None:
    house.client.respond(chat.session_id, "theirs pause first", stream=True)
    chat.say("mine")
    chat.expect_said("A message from elsewhere", "you said: theirs ", "mine")
    chat.expect_states("writing", "queued behind 1")
    let_go(house.journal)

    chat.expect_said("theirs pause first", "you said: theirs pause first", "mine", "you said: mine")
    chat.expect_states()


def test_what_a_program_adds_appears_and_what_it_withdraws_goes(house: House, chat: Chat) -> None:
    chat.say("hello pause")
    chat.expect_states("writing")
    waits = house.client.respond(chat.session_id, "never mind")
    house.client.save_session(chat.session_id, data={"seen": True})
    lines = [
        {"role": "assistant", "content": "By the way:"},
        {"role": "assistant", "content": "we open at six."},
    ]
    house.client.save_session(chat.session_id, messages=lines)
    # A look at the session finds all of them; the page is not loaded again.
    expect(chat.said).to_have_count(5)
    waits.cancel()
    let_go(house.journal)

    chat.expect_said("hello pause", "you said: hello pause", "By the way:", "we open at six.")
    chat.expect_states()
