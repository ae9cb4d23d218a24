"""The channel that docs/channels.md builds, from the webhook to the reply; and the page itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from inturn.persistence import PersistenceAdapter
from inturn.session import SessionState
from tests.agents import reply_to
from tests.integration.worker.conftest import StartWeb, StartWorker
from tests.nodes import ROOT
from tests.servers_telegram import SECRET, TOKEN, Telegram, update
from tests.waiting import wait_until

EXAMPLE = ROOT / "examples" / "telegram.py"
PAGE = ROOT / "docs" / "channels.md"


@pytest.fixture
def telegram() -> Iterator[Telegram]:
    with Telegram() as telegram:
        yield telegram
    assert telegram.faults == []


@pytest.fixture
def worker_env(worker_env: dict[str, str], telegram: Telegram) -> dict[str, str]:
    return {**worker_env, **telegram.env}


@pytest.fixture
def webhook(start_web: StartWeb) -> httpx.Client:
    return start_web().client


def tell(webhook: httpx.Client, sent: Any, secret: str = SECRET) -> httpx.Response:
    headers = {"X-Telegram-Bot-Api-Secret-Token": secret}
    return webhook.post("/channels/telegram", json=sent, headers=headers)


def session_of(store: PersistenceAdapter) -> SessionState:
    loaded = store.load("telegram:7")
    assert loaded is not None
    return loaded.session


@pytest.mark.process
class TestTheWholePath:
    def test_an_update_is_answered_with_a_message_once(
        self, webhook: httpx.Client, telegram: Telegram, start_worker: StartWorker, store: PersistenceAdapter
    ) -> None:
        worker = start_worker()
        for sent in (update(1, "hello"), update(1, "hello"), update(2, "and now?")):
            assert tell(webhook, sent).status_code == 200

        wait_until(lambda: len(telegram.messages) == 2, timeout=30)
        assert telegram.messages == [
            {"chat_id": 7, "text": "you said: hello"},
            {"chat_id": 7, "text": "you said: and now?"},
        ]
        wait_until(lambda: all(each.state == "sent" for each in session_of(store).outbox.values()))
        session = session_of(store)
        assert session.user_id == "telegram:7"
        assert [each.ids for each in session.outbox.values()] == [["101"], ["102"]]
        assert TOKEN not in worker.logs()

    def test_a_wait_that_telegram_wishes_for_is_kept_and_a_refusal_is_final(
        self, webhook: httpx.Client, telegram: Telegram, start_worker: StartWorker, store: PersistenceAdapter
    ) -> None:
        telegram.refusals = [(429, 1), (403, 0)]
        worker = start_worker()
        for number in range(3):
            tell(webhook, update(number, f"hello {number}"))

        wait_until(lambda: len(telegram.messages) == 2, timeout=30)
        assert [message["text"] for message in telegram.messages] == [
            "you said: hello 1",
            "you said: hello 2",
        ]
        assert "too many messages" in worker.logs()
        loaded = store.load("telegram:7")
        assert loaded is not None
        assert loaded.session.outbox["telegram%3A7:0"].error == "Telegram answered 403"

    def test_a_long_reply_comes_in_parts(
        self, webhook: httpx.Client, telegram: Telegram, start_worker: StartWorker
    ) -> None:
        start_worker()
        tell(webhook, update(1, f"{'👩🏽‍💻' * 900} count 900"))

        wanted = reply_to(f"{'👩🏽‍💻' * 900} count 900")
        wait_until(
            lambda: sum(len(each["text"]) for each in telegram.messages) >= len(wanted) - 10, timeout=30
        )
        texts = [message["text"] for message in telegram.messages]
        assert re.sub(r"\s", "", "".join(texts)) == re.sub(r"\s", "", wanted)
        assert len(texts) > 2

    def test_only_telegram_itself_is_heard_and_only_texts_are_messages(
        self, webhook: httpx.Client, telegram: Telegram, start_worker: StartWorker
    ) -> None:
        start_worker()
        edited = {"update_id": 1, "edited_message": update(1, "hello")["message"]}
        sticker = update(2, "")
        sticker["message"]["sticker"] = {"file_id": "x"}
        del sticker["message"]["text"]
        assert [tell(webhook, sent).status_code for sent in (edited, sticker)] == [200, 200]
        assert tell(webhook, update(3, "forged"), secret="guessed").status_code == 401
        assert tell(webhook, update(4, "forged"), secret="").status_code == 401
        assert tell(webhook, {"ok": True}).status_code == 400
        tell(webhook, update(5, "hello"))

        wait_until(lambda: telegram.messages, timeout=30)
        assert telegram.messages == [{"chat_id": 7, "text": "you said: hello"}]


def test_the_example_has_fewer_than_80_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 80


def test_the_page_explains_the_example_line_by_line() -> None:
    how_to = PAGE.read_text().partition("## A new channel")[2]
    blocks = re.findall(r"^```python\n(.*?)^```$", how_to, re.M | re.S)

    shown = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    wanted = [line.strip() for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert shown == wanted
