"""Exports: what was written is read back, and what is not whole is said to be so."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import zstandard

from inturn.errors import ConfigurationError, InvalidInputError, StoreUnavailableError
from inturn.persistence.adapter import SessionQuery
from inturn.persistence.exporting import SessionExport, read_export
from inturn.persistence.memory import MemoryAdapter
from inturn.session.state import SessionState, create_message, create_session


@pytest.fixture
def store() -> MemoryAdapter:
    adapter = MemoryAdapter()
    for number in range(3):
        session = create_session(f"s{number}", data={"name": "Zoë\n🎈"}, user_id="ann")
        lines = [create_message(session.id, "user", f"line {line}") for line in range(number * 700)]
        adapter.commit(session, lines, expected_version=0)
    return adapter


def sessions(store: MemoryAdapter) -> list[SessionState]:
    return store.find_sessions(SessionQuery(order="oldest")).items


def test_sessions_are_read_back_as_they_were(store: MemoryAdapter, tmp_path: Path) -> None:
    path = SessionExport(str(tmp_path / "out")).write(store, sessions(store)).path

    found = list(read_export(path))

    assert [each.session for each in found] == sessions(store)
    assert [len(each.messages) for each in found] == [0, 700, 1400]
    assert [message.sequence for message in found[2].messages] == list(range(1, 1401))
    assert found[2].messages[-1].content == "line 1399"
    assert [each.name for each in (tmp_path / "out").iterdir()] == [Path(path).name], "nothing else is left"
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_a_place_that_fsspec_knows_takes_them_as_well(store: MemoryAdapter) -> None:
    path = SessionExport("memory://exports/chat/").write(store, sessions(store)).path

    assert path.startswith("memory://exports/chat/")
    assert [each.session.id for each in read_export(path)] == ["s0", "s1", "s2"]


def test_what_is_said_after_the_selection_is_not_in_it(store: MemoryAdapter, tmp_path: Path) -> None:
    selected = sessions(store)
    store.commit(selected[0], [create_message("s0", "user", "later")], expected_version=1)

    first, *_ = read_export(SessionExport(str(tmp_path)).write(store, selected).path)

    assert (first.session.version, first.messages) == (1, [])


def test_a_file_that_is_cut_off_or_something_else_is_refused(store: MemoryAdapter, tmp_path: Path) -> None:
    whole = Path(SessionExport(str(tmp_path)).write(store, sessions(store)).path)
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(whole.read_bytes()).splitlines(True)
    broken = tmp_path / "broken"

    for content in (
        whole.read_bytes()[:-20],
        zstandard.compress(b"".join(lines[:-1])),
        zstandard.compress(b'{"kind": "export", "v": 2}\n'),
        zstandard.compress(b"no JSON\n"),
        b"something else",
        b"",
    ):
        broken.write_bytes(content)
        with pytest.raises(InvalidInputError, match="broken"):
            list(read_export(broken))


def test_a_place_that_cannot_be_written_to_is_named_as_such(store: MemoryAdapter, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreUnavailableError, match="INTURN_RETENTION_EXPORT"):
        SessionExport(str(tmp_path / "file")).write(store, sessions(store))
    with pytest.raises(ConfigurationError, match="INTURN_RETENTION_EXPORT"):
        SessionExport("nothing-like-it://x").write(store, sessions(store))
