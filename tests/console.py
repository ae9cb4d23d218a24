"""The console as tests use it without a browser: its operators, and how one signs in and sends a form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.testclient import TestClient

OPERATORS = "kim:a password of kim,lee:another password"
KIM, LEE = {"name": "kim", "password": "a password of kim"}, {"name": "lee", "password": "another password"}
HERE = {"Origin": "http://127.0.0.1"}
"""What a browser says of a form that comes from the console's own pages."""

ELSEWHERE = ("null", "https://evil.example", "http://127.0.0.1:81", "https://127.0.0.1")
"""What it says of forms that come from other sites."""


def sign_in(web: TestClient, who: dict[str, str] = KIM, **headers: str) -> Any:
    answered = web.post("/console/login", data=who, headers={**HERE, **headers}, follow_redirects=False)
    assert answered.status_code == 303, answered.text
    return answered


def hidden(page: Any) -> dict[str, str]:
    """What the hidden fields of the form on a page say: the last form, where there are several."""
    form = page.text.rpartition("<form")[2]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))


def act(web: TestClient, path: str, headers: Mapping[str, str] = HERE, **fields: str) -> Any:
    """Open the page of an act, and send its form, with these fields instead of its own."""
    page = web.get(path)
    assert page.status_code == 200, page.text
    data: Any = {**hidden(page), **fields}
    return web.post(path, data=data, headers=headers, follow_redirects=False)
