"""Flower's pages as a browser shows them: the ends of turns, and nothing that was said.

`FLOWER_SCREENSHOTS` names a directory where pictures of them are left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from inturn.client import Client
from tests.channels import Receiver
from tests.integration.worker.conftest import StartWorker
from tests.integration.worker.test_flower import flower
from tests.planted import ENDS, MARK, planted, planted_env
from tests.waiting import wait_until

pytestmark = pytest.mark.process


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    account = {"username": "ann", "password": "secret-enough"}
    context = browser.new_context(http_credentials=account, viewport={"width": 1400, "height": 900})  # type: ignore[arg-type]
    yield context.new_page()
    context.close()


def show(page: Page, url: str, name: str) -> str:
    """Open a page; gives its text and its markup once its tables are there."""
    page.goto(url)
    page.wait_for_load_state("networkidle")
    if pictures := os.environ.get("FLOWER_SCREENSHOTS"):
        page.screenshot(path=Path(pictures) / f"{name}.png", full_page=True)
    return page.locator("body").inner_text() + page.content()


def test_its_pages_show_no_word_of_a_turn(
    page: Page,
    start_worker: StartWorker,
    client: Client,
    broker_url: str,
    journal: Path,
    fast: dict[str, str],
    worker_env: dict[str, str],
    tmp_path: Path,
) -> None:
    env = {**worker_env, "FLOWER_BASIC_AUTH": "ann:secret-enough"}
    with (
        Receiver(lambda sent: 400 if "refuse" in sent.text else 200) as receiver,
        flower(tmp_path, env, "127.0.0.1") as (_, api),
    ):
        api.auth = ("ann", "secret-enough")
        start_worker(**planted_env(fast, receiver.url))
        [worker] = wait_until(lambda: api.get("/api/workers?refresh=1").json(), timeout=60)
        here = str(api.base_url)
        with planted(client, broker_url, journal) as turns:
            wait_until(lambda: turns["later"] in api.get("/api/tasks?limit=1000").json(), timeout=60)
            seen = show(page, f"{here}/worker/{worker}#tab-tasks", "worker-while-turns-run")

        def ends() -> dict[str, str]:
            tasks = api.get("/api/tasks?limit=1000").json()
            return {name: tasks[turns[name]]["state"] for name in ENDS if turns[name] in tasks}

        wait_until(lambda: ends() == ENDS, timeout=90)
        seen += show(page, f"{here}/workers", "workers")
        expect(page.get_by_text(worker)).to_be_visible()
        seen += show(page, f"{here}/worker/{worker}", "worker")
        for tab in page.get_by_role("tab").all():
            tab.click()
            seen += page.locator("body").inner_text()
        seen += show(page, f"{here}/broker", "broker")
        seen += show(page, f"{here}/tasks", "tasks")
        expect(page.get_by_text("FAILURE").first).to_be_visible()
        page.get_by_role("searchbox").fill(MARK)
        page.wait_for_load_state("networkidle")
        seen += page.locator("table").first.inner_text()
        for name in ("plain", "bug", "merged-1", "parked-refused", "bare"):
            seen += show(page, f"{here}/task/{turns[name]}", f"task-{name}")
            expect(page.get_by_text(ENDS[name]).first).to_be_visible()
        for session in ("s-plain", "s-bug"):
            assert session in seen

    assert MARK not in seen
