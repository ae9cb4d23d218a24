"""Secrets from files, as Docker, Kubernetes and systemd hand them out, in processes that have no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inturn.errors import ConfigurationError
from inturn.settings import load_settings
from tests.nodes import clean_environment


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("INTURN_") or name in ("REDIS_URL", "DATABASE_URL", "OPENAI_API_KEY"):
            monkeypatch.delenv(name)
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("INTURN_SECRETS_DIR", str(folder))
    return folder


def test_files_are_named_as_the_variables(secrets: Path) -> None:
    (secrets / "REDIS_URL").write_text("redis://:pass@valkey:6379/0\n")
    (secrets / "INTURN_DATABASE_URL").write_text("postgresql://postgres/inturn\n")
    (secrets / "INTURN_API_KEYS").write_text("backend:0123456789abcdef\n")

    settings = load_settings()

    assert settings.redis_url.get_secret_value() == "redis://:pass@valkey:6379/0"
    assert settings.database_url.get_secret_value() == "postgresql://postgres/inturn"
    assert settings.api_keys is not None
    assert settings.api_keys.get_secret_value() == "backend:0123456789abcdef"
    assert settings.secrets_dir == secrets


def test_a_variable_wins_over_its_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "REDIS_URL").write_text("redis://of-the-file")
    monkeypatch.setenv("REDIS_URL", "redis://of-the-variable")

    assert load_settings().redis_url.get_secret_value() == "redis://of-the-variable"


def test_an_empty_file_sets_nothing(secrets: Path) -> None:
    (secrets / "OPENAI_API_KEY").write_text("\n")
    (secrets / "DATABASE_URL").touch()

    settings = load_settings()

    assert settings.openai_api_key is None
    assert settings.database_url.get_secret_value() == "sqlite:///inturn.db"


def test_kubernetes_links_to_a_directory_that_it_replaces(secrets: Path) -> None:
    data = secrets / "..2026_11_25"
    data.mkdir()
    (data / "REDIS_URL").write_text("redis://linked")
    (secrets / "..data").symlink_to(data.name)
    (secrets / "REDIS_URL").symlink_to("..data/REDIS_URL")

    assert load_settings().redis_url.get_secret_value() == "redis://linked"


def test_a_directory_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTURN_SECRETS_DIR", "/nowhere/secrets")

    with pytest.raises(ConfigurationError, match="there is no directory '/nowhere/secrets'"):
        load_settings()


def test_a_secret_that_cannot_be_read_is_an_error_that_does_not_show_it(
    secrets: Path, tmp_path: Path
) -> None:
    (secrets / "REDIS_URL").write_bytes(b"zebra\xff")
    with pytest.raises(ConfigurationError, match="redis_url") as caught:
        load_settings()
    assert "zebra" not in str(caught.value)

    (secrets / "REDIS_URL").unlink()
    (tmp_path / "elsewhere").write_text("redis://zebra")
    (secrets / "REDIS_URL").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="resolves outside of"):
        load_settings()


def test_a_wrong_value_names_its_variable(secrets: Path) -> None:
    (secrets / "INTURN_AUDIT_KEY").write_text("short")

    with pytest.raises(ConfigurationError, match="INTURN_AUDIT_KEY"):
        load_settings()


def test_a_process_takes_them(secrets: Path, tmp_path: Path) -> None:
    database = tmp_path / "chat.db"
    (secrets / "DATABASE_URL").write_text(f"sqlite:///{database}\n")

    subprocess.run(
        [Path(sys.executable).parent / "inturn", "db", "upgrade"],
        env={**clean_environment(), "INTURN_SECRETS_DIR": str(secrets)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )

    assert database.exists()
