"""The files of the chat page, and what a browser is told of them."""

from __future__ import annotations

import re

import pytest

from producer.chat import POLICY
from tests.integration.worker.conftest import WebHere
from tests.web import KEYS


def test_the_page_is_public_and_all_it_is_made_of_is_its_own(here: WebHere) -> None:
    web = here(api_keys=KEYS)
    page = web.get("/chat")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    parts = set(re.findall(r'(?:href|src)="([^"]+)"', page.text))
    types = {part: web.get(f"/{part}").headers["content-type"].partition(";")[0] for part in parts}
    assert types == {
        "chat/chat.css": "text/css",
        "chat/icon.svg": "image/svg+xml",
        **{
            f"chat/{name}.js": "text/javascript"
            for name in ("api", "chat", "conversation", "outbox", "patience", "view")
        },
    }


def test_nothing_in_the_page_but_its_files_may_run(here: WebHere) -> None:
    page = here().get("/chat")

    assert page.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert page.headers["x-frame-options"] == "DENY"
    assert re.findall(r"<style|<script(?! type=\"module\" src=)|\s(?:on\w+|style)=", page.text) == []


def test_a_file_is_sent_again_only_when_it_has_changed(here: WebHere) -> None:
    web = here()
    first = web.get("/chat/chat.js")
    again = web.get("/chat/chat.js", headers={"If-None-Match": first.headers["etag"]})
    changed = web.get("/chat/chat.js", headers={"If-None-Match": '"of another release"'})

    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert (changed.status_code, changed.content) == (200, first.content)


@pytest.mark.parametrize(
    "path", ["/chat/", "/chat/index.html", "/chat/chat.py", "/chat/..%2Fchat.py", "/chat/a/b"]
)
def test_there_is_nothing_else(path: str, here: WebHere) -> None:
    assert here().get(path).status_code == 404
