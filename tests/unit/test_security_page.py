"""SECURITY.md: every row of its table names tests, and these exist."""

from __future__ import annotations

import re

import pytest

from tests.nodes import ROOT

ROWS = [
    line
    for line in (ROOT / "SECURITY.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| who | from", "| ---"))
]


def named_in(row: str) -> list[tuple[str, str]]:
    """The files and functions that a row names."""
    return re.findall(r"`([\w/]+\.py)::(test_\w+)`", row.split(" | ")[-1])


def test_there_is_a_table() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_every_row_names_tests_that_exist(number: int) -> None:
    named = named_in(ROWS[number])

    assert named, ROWS[number]
    for path, function in named:
        assert re.search(rf"^ *def {function}\(", (ROOT / path).read_text(), re.M), f"{path}::{function}"
