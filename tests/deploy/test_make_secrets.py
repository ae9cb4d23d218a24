"""deploy/make_secrets.py: what it writes, and that it never writes over what is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.nodes import ROOT

SECRETS = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["secrets"]


def make(folder: Path) -> dict[str, str]:
    """Run it with Python alone; gives what the files hold."""
    script = ROOT / "deploy" / "make_secrets.py"
    subprocess.run([sys.executable, "-I", "-S", script, "--folder", folder], check=True, capture_output=True)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_it_makes_all_that_compose_reads_and_nothing_else(tmp_path: Path) -> None:
    assert set(make(tmp_path / "secrets")) == set(SECRETS)


def test_nobody_else_may_enter_and_a_container_may_read(tmp_path: Path) -> None:
    make(tmp_path / "secrets")

    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o644}


def test_no_two_runs_make_the_same_and_none_writes_over_another(tmp_path: Path) -> None:
    first, other = make(tmp_path / "secrets"), make(tmp_path / "other")

    assert {name for name in first if first[name] and first[name] == other[name]} == set()
    assert make(tmp_path / "secrets") == first


def test_what_is_missing_is_made_to_fit_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make(folder)
    (folder / "OPENAI_API_KEY").write_text("sk-mine\n")
    (folder / "POSTGRES_PASSWORD").write_text("my-own\n")
    for name in ("DATABASE_URL", "users.acl", "INTURN_CONSOLE_USERS"):
        (folder / name).unlink()

    made = make(folder)

    assert made["OPENAI_API_KEY"] == "sk-mine\n"
    assert made["DATABASE_URL"] == "postgresql://inturn:my-own@postgres:5432/inturn\n"
    for user in ("producer", "worker", "maintenance", "flower"):
        password = made[f"REDIS_URL_{user}"].split(":")[2].partition("@")[0]
        assert f"user {user} on >{password} " in made["users.acl"]
    assert "user default off" in made["users.acl"]
