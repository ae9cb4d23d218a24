"""The adapter of docs/custom-adapter.md keeps the contract, in under 120 lines that the page shows."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.custom_adapter import JournalAdapter
from inturn.errors import StoreUnavailableError
from inturn.persistence import PersistenceAdapter, PersistenceManager
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen
from tests.nodes import ROOT

CODE = (ROOT / "examples" / "custom_adapter.py").read_text()
PAGE = (ROOT / "docs" / "custom-adapter.md").read_text()


class TestJournal(AdapterConformance):
    @pytest.fixture
    def adapter(self, tmp_path: Path) -> Iterator[PersistenceAdapter]:
        with JournalAdapter(f"{tmp_path}/journal") as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, adapter: PersistenceAdapter, tmp_path: Path) -> Reopen:
        return functools.partial(JournalAdapter, f"{tmp_path}/journal")


def test_it_has_under_120_lines() -> None:
    assert len(CODE.splitlines()) < 120


def test_the_page_shows_the_file_as_it_is() -> None:
    marked = r"^<!-- file: examples/custom_adapter.py -->\n```python\n(.*?)^```$"

    assert re.findall(marked, PAGE, re.M | re.S) == [CODE]


def test_it_works_beneath_a_manager(tmp_path: Path) -> None:
    manager = PersistenceManager(JournalAdapter(f"{tmp_path}/journal"))
    manager.create_session(id="s", user_id="ann", initial_data={"city": "Lagos"})
    manager.save_message(session_id="s", role="user", content="hello")
    again = PersistenceManager(JournalAdapter(f"{tmp_path}/journal")).load_session_state("s")

    assert again is not None
    assert (again.data, again.history[0].content) == ({"city": "Lagos"}, "hello")


def test_half_a_line_of_a_killed_writer_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first = PersistenceManager(JournalAdapter(str(path)))
    first.create_session(id="s")
    with path.open("ab") as file:
        file.write(path.read_bytes()[:-20].replace(b'"s"', b'"t"'))
    second = PersistenceManager(JournalAdapter(str(path)))

    assert first.find_session_by_id("t") is None
    assert second.find_session_by_id("t") is None
    second.create_session(id="u")
    assert first.find_session_by_id("u") is not None
    assert first.find_session_by_id("s") is not None


def test_a_file_that_cannot_be_opened_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="Is a directory"):
        JournalAdapter(str(tmp_path)).ping()
