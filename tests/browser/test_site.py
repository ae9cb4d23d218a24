"""The documentation's site in a browser: its search works with nothing but the site itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.site import built_site


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


pytestmark = pytest.mark.long  # the site is built first


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    site: Path = built_site(tmp_path_factory)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_code_can_be_read_by_everybody(scheme: str, address: str, page: Page) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    for name in ("index", "quickstart", "reference/client"):
        page.goto(f"{address}/{name}.html")
        found = Axe().run(page, options={"runOnly": ["color-contrast", "link-in-text-block", "image-alt"]})
        assert [node["html"] for rule in found.response["violations"] for node in rule["nodes"]] == []


def test_the_search_finds_a_page_and_asks_nobody_else(address: str, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/index.html")
    page.locator(".md-search__input").click()
    page.locator(".md-search__input").press_sequentially("appendfsync")
    found = page.locator(".md-search-result__link")
    found.first.wait_for()

    found.first.click()

    page.wait_for_url(f"{address}/durability.html*")
    assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []
