"""The wheel: what it holds, and that its worker and its web application run from it."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import httpx
import pytest

from inturn.embedded.ports import free_port
from inturn.embedded.valkey import EmbeddedValkey
from tests.nodes import ROOT, ProcessContainer, clean_environment, worker_container


def run(python: Path, *arguments: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), *arguments], cwd=python.parent, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_wheel_holds_every_file_of_the_three_source_trees(wheel: Path) -> None:
    trees = {"src/inturn": "inturn", "worker": "inturn/worker", "producer": "inturn/producer"}
    expected = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in trees.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert names == expected
    assert {"inturn/py.typed", "inturn/worker/celery.py", "inturn/producer/web.py"} <= names
    assert {Path(name).suffix for name in names} >= {".py", ".lua", ".sql"}


def test_the_library_is_the_wheels_own(python: Path) -> None:
    where = run(python, "-c", "import inturn; print(inturn.__file__)")

    assert Path(where).is_relative_to(python.parent.parent)


@pytest.fixture
def environment(valkey: EmbeddedValkey, tmp_path: Path) -> dict[str, str]:
    # The repository's root only, for the example agent: the sources of the library are below `src`.
    return {
        **clean_environment(),
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": valkey.url,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'sessions.db'}",
    }


@pytest.mark.process
def test_a_worker_starts_from_the_wheel(python: Path, environment: dict[str, str], tmp_path: Path) -> None:
    worker = worker_container(tmp_path, environment, app="inturn.worker", python=str(python))
    try:
        worker.start()
    finally:
        worker.remove()


@pytest.mark.process
def test_the_web_application_starts_from_the_wheel(
    python: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    command = [str(python), "-m", "uvicorn", "inturn.producer.web:app", "--port", str(port)]
    web = ProcessContainer("web", command, directory=tmp_path, env=environment, prompt="Uvicorn running")
    try:
        web.start()
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").json()["status"] == "ok"
    finally:
        web.remove()


def test_the_command_is_installed(python: Path) -> None:
    assert "Usage" in run(python.with_name("inturn"), "--help")


def test_the_migrations_run_from_it(python: Path, tmp_path: Path) -> None:
    upgrade = f"upgrade('sqlite:///{tmp_path}/sessions.db').is_complete"
    said = run(python, "-c", f"from inturn.persistence.schema import upgrade; print({upgrade})")
    assert said == "True"
