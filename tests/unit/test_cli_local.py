"""Which servers a command uses: those the environment names, else those of an `inturn dev` that runs here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inturn.cli.local import local_settings, write_note
from tests.nodes import clean_environment


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> str:
    """The store of an `inturn dev` that has left word of its servers; its Redis answers."""
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".inturn" / "dev"
    folder.mkdir(parents=True)
    store = f"sqlite:///{folder / 'inturn.db'}"
    write_note(folder, redis_url, store)
    assert (folder / "servers.json").stat().st_mode & 0o077 == 0
    return store


def where() -> tuple[str, str]:
    settings = local_settings()
    return settings.redis_url.get_secret_value(), settings.database_url.get_secret_value()


def test_where_nothing_is_named_those_of_dev_are_used(dev: str, redis_url: str) -> None:
    assert where() == (redis_url, dev)


@pytest.mark.parametrize("name", ["DATABASE_URL", "INTURN_DATABASE_URL"])
@pytest.mark.usefixtures("dev")
def test_a_store_that_is_named_is_the_one_that_is_meant(
    name: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "postgresql://localhost/chat")

    assert where() == (redis_url, "postgresql://localhost/chat")


@pytest.mark.usefixtures("dev")
def test_with_a_redis_that_is_named_nothing_of_dev_is_used(dev: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://localhost:1/0")

    redis, store = where()
    assert redis == "redis://localhost:1/0"
    assert store != dev


def test_word_of_a_dev_that_has_ended_is_not_believed(dev: str, tmp_path: Path) -> None:
    write_note(tmp_path / ".inturn" / "dev", "redis://127.0.0.1:1/0", dev)

    assert where()[1] != dev
