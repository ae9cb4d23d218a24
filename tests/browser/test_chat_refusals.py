"""The chat page where something is not allowed: strangers, others' conversations, too much, too often."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from inturn.session.state import utcnow
from tests.agents import read_journal, reply_to
from tests.browser.chat import Chat
from tests.browser.conftest import House, OpenChat
from tests.web import Web, signed

pytestmark = pytest.mark.process


def token(user_id: str, *, lasts: float = 600) -> str:
    return signed(user_id, exp=utcnow().timestamp() + lasts)["Authorization"].removeprefix("Bearer ")


def sign_in(chat: Chat, token: str) -> None:
    chat.page.get_by_label("Token or API key").fill(token)
    chat.button("Sign in").click()


@pytest.fixture
def stranger(house: House, strict_web: Web, open_chat: OpenChat) -> Chat:
    """The page of a web process that wants to know who asks."""
    return open_chat(strict_web)


def test_who_asks_is_asked_for_once_in_a_tab(stranger: Chat) -> None:
    stranger.say("hello")
    expect(stranger.page.get_by_text("This chat wants to know who you are.")).to_be_visible()
    expect(stranger.box).to_be_hidden()
    sign_in(stranger, "nonsense")
    expect(stranger.page.get_by_text("This was not accepted: neither a known API key")).to_be_visible()
    sign_in(stranger, f"  {token('ann')} ")

    stranger.expect_said("hello", "you said: hello")
    stranger.page.reload()
    stranger.expect_said("hello", "you said: hello")
    expect(stranger.button("Sign out")).to_be_visible()


def test_a_token_that_expires_is_asked_for_again_and_nothing_is_lost(stranger: Chat) -> None:
    stranger.say("hello")
    sign_in(stranger, token("bob", lasts=-60))
    expect(stranger.page.get_by_text("This was not accepted: the token has expired")).to_be_visible()
    sign_in(stranger, token("bob"))

    stranger.expect_said("hello", "you said: hello")


def test_who_signs_out_leaves_nothing_behind(stranger: Chat, house: House) -> None:
    stranger.say("hello")
    sign_in(stranger, token("cleo"))
    stranger.expect_said("hello", "you said: hello")
    before = stranger.session_id
    stranger.button("Sign out").click()

    expect(stranger.page.get_by_text("Write a message to begin.")).to_be_visible()
    assert stranger.session_id != before
    assert stranger.page.evaluate("Object.keys(sessionStorage)") == []
    assert stranger.page.evaluate("Object.keys(localStorage)") == ["inturn.conversation"]


def test_nobody_reads_or_writes_in_somebody_elses_conversation(
    stranger: Chat, house: House, strict_web: Web, open_chat: OpenChat
) -> None:
    stranger.say("hello")
    sign_in(stranger, token("dora"))
    stranger.expect_said("hello", "you said: hello")
    other = open_chat(strict_web)
    other.page.goto(stranger.page.url)
    sign_in(other, token("eve"))
    expect(other.page.get_by_text("Write a message to begin.")).to_be_visible()
    other.say("let me in")

    other.expect_states("not sent: this conversation is somebody else's; begin a new one")
    assert stranger.history(house.store) == ["hello", "you said: hello"]


def test_a_message_that_is_too_long_can_be_mended(stranger: Chat) -> None:
    stranger.say("x" * 61)
    sign_in(stranger, token("fay"))
    stranger.say("short")
    expect(stranger.replies).to_have_text("you said: short")
    expect(stranger.states).to_contain_text(["not sent: a message may have"])
    stranger.button("Edit").click()
    expect(stranger.box).to_have_value("x" * 61)
    stranger.say("no longer")

    stranger.expect_said("short", "you said: short", "no longer", "you said: no longer")
    stranger.expect_states()


def test_a_request_of_too_many_bytes_is_refused_in_words(stranger: Chat) -> None:
    stranger.say("x" * 5_000)

    stranger.expect_states("not sent: the message is too long")


def test_too_many_messages_are_sent_a_little_later(stranger: Chat, house: House) -> None:
    texts = [f"message {number} of hal" for number in range(6)]
    stranger.say(texts[0])
    sign_in(stranger, token("hal"))
    for text in texts[1:]:
        stranger.say(text)

    expect(stranger.states.get_by_text("too many messages, next try in").first).to_be_visible()
    stranger.expect_said(*(line for text in texts for line in (text, reply_to(text))))
    assert [call.text for call in read_journal(house.journal) if "hal" in call.text] == texts
