"""docs/differences.md: every test that it names exists, and every row says how things are and how we know."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.nodes import ROOT

PAGE = ROOT / "docs" / "differences.md"
NAMED = re.compile(r"((?:`test_\w+`(?:, )?)+) in \[[\w.]+\]\(([\w./]+)\)")


def rows() -> Iterator[list[str]]:
    """The cells of each row of a table, without its head."""
    for line in PAGE.read_text().splitlines():
        if line.startswith("| ") and not line.startswith(("| ---", "| @falai/agent |")):
            yield line.strip("| ").split(" | ")


def test_every_row_says_what_was_what_is_and_why() -> None:
    for row in rows():
        assert len(row) == 3, row
        assert all(row), row


def test_every_test_that_is_named_exists_where_it_is_said_to_be() -> None:
    text = PAGE.read_text()
    named = [(name, path) for names, path in NAMED.findall(text) for name in re.findall(r"test_\w+", names)]

    assert len(named) == len(re.findall(r"`test_\w+`", text)) > 100
    for name, path in named:
        assert re.search(rf"^ *def {name}\(", (PAGE.parent / path).read_text(), re.M), f"{name} in {path}"
