"""A browser, all that the page needs for tests that leave it alone, and the queue's fixtures for others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, sync_playwright

from inturn.client import Client
from inturn.embedded.valkey import EmbeddedValkey
from inturn.persistence import PersistenceAdapter, open_adapter
from inturn.settings import load_settings
from tests.agents import let_go
from tests.browser.chat import Chat
from tests.integration.worker.conftest import *  # noqa: F403
from tests.nodes import worker_container
from tests.web import SECRET, Web, web_process

OpenChat = Callable[..., Chat]


class House(NamedTuple):
    """A Valkey, a worker with the agent of `tests.agents`, a web process, and a look at what they do."""

    web: Web
    client: Client
    store: PersistenceAdapter
    journal: Path
    directory: Path
    env: Mapping[str, str]


# Not for the whole session: while it is there, no other test of this process can run an event loop.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        reason = "there is no Chromium on this machine; on Debian: apt-get install chromium"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # Its sandbox needs rights that a container does not give.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def everything(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("house")
    journal = directory / "journal.jsonl"
    with ExitStack() as stack, ThreadPoolExecutor() as starter:
        redis_url = stack.enter_context(EmbeddedValkey(directory / "valkey")).url
        store = stack.enter_context(open_adapter(f"sqlite:///{directory / 'sessions.db'}"))
        store.initialize()
        client = stack.enter_context(Client(load_settings(redis_url=redis_url)))
        env = {
            "REDIS_URL": redis_url,
            "DATABASE_URL": f"sqlite:///{directory / 'sessions.db'}",
            "INTURN_AGENT": "tests.agents:agent",
            "INTURN_RETRY_SECONDS": "0.5",
            "INTURN_RETRY_MAX_SECONDS": "1",
            "INTURN_MAX_ATTEMPTS": "1000",  # what is `overloaded` stays so until a test lets it go
            "TEST_JOURNAL": str(journal),
        }
        worker = worker_container(directory, env)
        stack.callback(worker.remove)
        started = starter.submit(worker.start)
        web = stack.enter_context(web_process(directory, env))
        started.result()
        yield House(web, client, store, journal, directory, env)
        let_go(journal)


@pytest.fixture(scope="package")
def strict_web(everything: House) -> Iterator[Web]:
    """Another web process of the house, for signed-in users only.

    They may ask six times in three seconds and write sixty characters, in requests of at most 4,456 bytes.
    """
    strict = {
        "INTURN_JWT_SECRET": SECRET,
        "INTURN_RATE_LIMIT": "6/3 seconds",
        "INTURN_MAX_MESSAGE_CHARS": "60",
        "INTURN_MAX_PAYLOAD_BYTES": "4096",
    }
    with web_process(everything.directory, {**everything.env, **strict}) as web:
        yield web


@pytest.fixture
def house(everything: House) -> Iterator[House]:
    """All that the page needs; leave it running, for it is shared. Replies that `pause` wait to be let go."""
    Path(f"{everything.journal}.go").unlink(missing_ok=True)
    if everything.web.process.status == "exited":  # where a test has failed
        everything.web.process.start()
    yield everything
    print(f"--- web\n{everything.web.process.tail()}")  # pytest shows it where a test has failed


@pytest.fixture
def open_chat(browser: Browser) -> Iterator[OpenChat]:
    """Open the chat page of a web process in a window of its own: `open_chat(web, color_scheme="dark")`.

    With `at` it opens the conversation of another window, as another device does, and with `beside` in a tab
    beside it. The test fails if anything but the network has failed in one of its windows.
    """
    opened: list[Chat] = []

    def open_one(web: Web, *, at: Chat | None = None, beside: Chat | None = None, **options: Any) -> Chat:
        context = beside.context if beside else browser.new_context(**options)
        known = at or beside
        opened.append(Chat(context, known.page.url if known else f"{web.url}/chat"))
        return opened[-1]

    yield open_one
    faults = [fault for chat in opened for fault in chat.faults]
    for chat in opened:
        print(f"--- page\n{chat.page.locator('body').aria_snapshot()}")
    for chat in opened:
        chat.context.close()
    assert faults == []


@pytest.fixture
def chat(open_chat: OpenChat, house: House) -> Chat:
    """The page, opened for the first time."""
    return open_chat(house.web)
