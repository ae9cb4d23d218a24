"""The chat page while processes are killed and stopped behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from inturn.persistence import PersistenceAdapter
from tests.agents import let_go, reply_to
from tests.browser.chat import Chat
from tests.browser.conftest import House, OpenChat
from tests.integration.worker.conftest import StartWorker
from tests.web import Web

pytestmark = pytest.mark.process


def test_web_processes_that_are_killed_and_stopped_in_mid_reply_cost_no_text(
    house: House, chat: Chat
) -> None:
    chat.watch_replies()
    chat.say("killed pause and stopped count 50")
    chat.expect_said("killed pause and stopped count 50", "you said: killed ")
    house.web.process.kill("SIGKILL")
    expect(chat.connection).to_have_text("Offline: reconnecting")
    house.web.process.start()
    expect(chat.connection).to_have_text("")
    house.web.process.restart()
    let_go(house.journal)

    reply = reply_to("killed pause and stopped count 50")
    whole = ["killed pause and stopped count 50", reply]
    chat.expect_said(*whole)
    chat.expect_states()
    expect(chat.connection).to_have_text("")
    assert chat.history(house.store) == whole
    assert [text for text in chat.noted() if not reply.startswith(text)] == [], "no text comes twice"


def test_a_reply_whose_worker_is_killed_begins_anew_and_ends_right(
    start_worker: StartWorker,
    web: Web,
    open_chat: OpenChat,
    journal: Path,
    store: PersistenceAdapter,
    fast: dict[str, str],
) -> None:
    chat = open_chat(web)
    chat.watch_replies()
    chat.say("one pause two count 50")
    chat.expect_states("waiting")
    victim = start_worker(**fast)
    chat.expect_said("one pause two count 50", "you said: one ")
    victim.kill("SIGKILL")
    let_go(journal)
    start_worker(**fast)

    reply = reply_to("one pause two count 50")
    whole = ["one pause two count 50", reply]
    chat.expect_said(*whole)
    chat.expect_states()
    assert chat.history(store) == whole
    assert [text for text in chat.noted() if not reply.startswith(text)] == [], "the old text goes first"
