"""`inturn doctor` on real servers: what it finds where all is well, and where something is not."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from inturn.cli import app
from inturn.embedded.ports import free_port
from inturn.embedded.valkey import EmbeddedValkey
from inturn.persistence import SessionQuery, open_adapter
from tests.nodes import ProcessContainer, clean_environment, worker_container

AGENT = """
from inturn import Agent, OfflineProvider

print("printed while it is imported")
agent = Agent("the front desk", provider=OfflineProvider())
"""


class Report:
    """What one run said, and its exit code."""

    def __init__(self, code: int, said: str) -> None:
        report = json.loads(said)
        self.code = code
        self.ok: bool = report["ok"]
        self.checks: dict[str, dict[str, str]] = {check["name"]: check for check in report["checks"]}
        self.said = said

    @property
    def statuses(self) -> dict[str, str]:
        return {name: check["status"] for name, check in self.checks.items()}

    def __getitem__(self, name: str) -> dict[str, str]:
        return self.checks[name]


Doctor = Callable[..., Report]


@pytest.fixture
def env(valkey: EmbeddedValkey, tmp_path: Path) -> dict[str, str]:
    """Where all is well but for the worker, which a test starts if it needs one."""
    (tmp_path / "well.py").write_text(AGENT)
    url = f"sqlite:///{tmp_path}/sessions.db"
    with open_adapter(url):
        pass
    return {"REDIS_URL": valkey.url, "DATABASE_URL": url, "INTURN_AGENT": "well:agent"}


@pytest.fixture
def doctor(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Run it in `tmp_path`, with other settings if a test gives some."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)

    def run(**changed: str) -> Report:
        sys.modules.pop("well", None)
        done = CliRunner().invoke(app, ["doctor", "--json"], env={**env, **changed})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Report(done.exit_code, done.stdout)

    return run


@pytest.fixture
def worker(env: dict[str, str], tmp_path: Path) -> Iterator[ProcessContainer]:
    container = worker_container(tmp_path, env, concurrency=2)
    container.start()
    yield container
    container.remove()
    print(container.tail())


@pytest.mark.process
class TestAllIsWell:
    def test_every_check_is_ok(self, doctor: Doctor, worker: ProcessContainer) -> None:
        report = doctor()

        assert set(report.statuses.values()) == {"ok"}
        assert list(report.checks) == [
            *("settings", "redis", "redis memory", "redis durability", "clock", "broker", "worker"),
            *("maintenance", "store", "schema", "round trip", "agent"),
        ]
        assert {check["mend"] for check in report.checks.values()} == {""}
        assert (report.code, report.ok) == (0, True)
        assert "worker@" in report["worker"]["found"]
        assert "the front desk" in report["agent"]["found"]

    def test_as_a_command_it_says_so(self, env: dict[str, str], worker: Any, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", "from inturn.cli import main; main()", "doctor"],
            env={**clean_environment(), **env},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "all is well")

    def test_it_leaves_nothing_in_the_store(self, doctor: Doctor, worker: Any, env: dict[str, str]) -> None:
        assert doctor().ok
        with open_adapter(env["DATABASE_URL"]) as store:
            assert store.find_sessions(SessionQuery()).items == []


def test_without_a_worker_it_says_how_to_start_one(doctor: Doctor) -> None:
    report = doctor()
    assert [name for name, status in report.statuses.items() if status != "ok"] == ["worker"]
    assert (report.code, report["worker"]["status"]) == (1, "failed")
    assert "celery -A worker worker" in report["worker"]["mend"]


@pytest.mark.process
def test_a_worker_that_takes_no_turns_is_none(doctor: Doctor, env: dict[str, str], tmp_path: Path) -> None:
    container = worker_container(tmp_path, env, concurrency=1)
    container.command += ["--queues", "maintenance"]
    try:
        container.start()
        report = doctor()
    finally:
        container.remove()
    assert report["worker"]["status"] == "failed"
    assert "takes no turns" in report["worker"]["found"]


def test_redis_away_fails_what_needs_it_and_nothing_else(doctor: Doctor) -> None:
    report = doctor(REDIS_URL=f"redis://:secret@127.0.0.1:{free_port()}/0")
    assert report.code == 1
    assert report.statuses == {
        "settings": "ok",
        "redis": "failed",
        "clock": "skipped",
        "broker": "failed",
        "worker": "skipped",
        "store": "ok",
        "schema": "ok",
        "round trip": "ok",
        "agent": "ok",
    }
    assert "REDIS_URL" in report["redis"]["mend"]
    assert "refused" in report["redis"]["found"]
    assert "secret" not in report.said


def test_a_broker_of_its_own_that_is_away_is_told_from_redis(doctor: Doctor) -> None:
    report = doctor(INTURN_BROKER_URL=f"amqp://user:secret@127.0.0.1:{free_port()}//")
    assert (report["redis"]["status"], report["broker"]["status"]) == ("ok", "failed")
    assert "INTURN_BROKER_URL" in report["broker"]["mend"]
    assert "secret" not in report.said


def test_a_store_that_is_away(doctor: Doctor) -> None:
    report = doctor(DATABASE_URL=f"postgresql://user:secret@127.0.0.1:{free_port()}/db")
    assert (report.code, report["store"]["status"]) == (1, "failed")
    assert "DATABASE_URL" in report["store"]["mend"]
    assert not {"schema", "round trip"} & report.checks.keys()
    assert "secret" not in report.said


def test_a_store_that_nobody_has_initialised_yet(doctor: Doctor, database_url: str) -> None:
    name = f"inturn_test_{secrets.token_hex(4)}"
    schema = sql.Identifier(name)
    schema_url = f"{database_url}{'&' if '?' in database_url else '?'}options=-csearch_path%3D{name}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
        try:
            check_before_and_after(doctor, schema_url)
        finally:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(schema))


def check_before_and_after(doctor: Doctor, schema_url: str) -> None:
    report = doctor(DATABASE_URL=schema_url)
    assert (report["store"]["status"], report["schema"]["status"]) == ("ok", "failed")
    assert "start a worker" in report["schema"]["mend"]

    with open_adapter(schema_url):
        report = doctor(DATABASE_URL=schema_url)
    assert (report["schema"]["status"], report["round trip"]["status"]) == ("ok", "ok")


def test_a_database_without_tables(doctor: Doctor, tmp_path: Path) -> None:
    report = doctor(DATABASE_URL=f"sqlite:///{tmp_path}/new.db")
    assert (report.code, report["schema"]["status"]) == (1, "failed")
    assert "no such table" in report["schema"]["found"]


def test_a_database_that_may_only_be_read(doctor: Doctor, tmp_path: Path) -> None:
    """The rights are the database's own: a trigger refuses, as it does for root too."""
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE INSERT ON agent_messages BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    report = doctor()
    assert report["round trip"]["status"] == "failed"


def test_a_store_in_memory_is_a_warning(doctor: Doctor) -> None:
    report = doctor(DATABASE_URL="memory://")
    assert report["store"]["status"] == "warning"
    assert "postgresql://" in report["store"]["mend"]


def test_a_url_of_no_store_and_a_driver_that_is_missing(
    doctor: Doctor, tmp_path: Path, env: dict[str, str]
) -> None:
    report = doctor(DATABASE_URL="postgre://localhost/x")
    assert "did you mean postgres" in report["store"]["found"]

    (tmp_path / "psycopg.py").write_text('raise ModuleNotFoundError("no", name="psycopg")\n')
    done = subprocess.run(
        [sys.executable, "-c", "from inturn.cli import main; main()", "doctor", "--json"],
        env={
            **clean_environment(),
            **env,
            "DATABASE_URL": "postgresql://localhost/x",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), clean_environment()["PYTHONPATH"]]),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    report = Report(done.returncode, done.stdout)
    assert (report.code, report["store"]["status"]) == (1, "failed")
    assert "pip install 'psycopg[binary,pool]'" in report["store"]["found"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere:agent", "there is no module 'nowhere'"),
        ("well:agnet", "did you mean well:agent?"),
        ("broken:agent", "raises ZeroDivisionError"),
    ],
)
def test_an_agent_that_does_not_load(doctor: Doctor, tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    report = doctor(INTURN_AGENT=path)
    assert (report.code, report["agent"]["status"]) == (1, "failed")
    assert words in report["agent"]["found"]


def test_a_channel_that_cannot_be_made_is_named(doctor: Doctor) -> None:
    report = doctor(INTURN_CHANNELS="nowhere:channel")
    assert (report.code, report["channels"]["status"]) == (1, "failed")
    assert "no module 'nowhere'" in report["channels"]["found"]


@pytest.mark.process
def test_replies_that_no_worker_sends_are_missed(
    doctor: Doctor, env: dict[str, str], tmp_path: Path, worker: ProcessContainer
) -> None:
    channels = {"INTURN_CHANNELS": "tests.channels:channel", "TEST_RECEIVER": "http://127.0.0.1:1"}
    report = doctor(**channels)
    assert (report.code, report["channels"]["found"]) == (0, "recording")
    assert report["delivery"]["status"] == "ok"

    worker.kill("SIGKILL")
    container = worker_container(tmp_path, {**env, **channels}, concurrency=1)
    container.command += ["--queues", "turns"]
    try:
        container.start()
        report = doctor(**channels)
    finally:
        container.remove()
    assert (report.code, report["delivery"]["status"]) == (1, "failed")
    assert "-Q delivery" in report["delivery"]["mend"]
    assert report["maintenance"]["status"] == "warning"
    assert "-Q maintenance" in report["maintenance"]["mend"]


def test_wrong_settings_are_named_and_end_it(doctor: Doctor) -> None:
    report = doctor(INTURN_LEASE_SECONDS="soon")
    assert (report.code, report.statuses) == (1, {"settings": "failed"})
    assert "INTURN_LEASE_SECONDS" in report["settings"]["found"]


@pytest.mark.process
@pytest.mark.parametrize(("maxmemory", "status", "code"), [("0", "warning", 0), ("100mb", "failed", 1)])
def test_a_redis_that_would_lose_turns(
    doctor: Doctor, env: dict[str, str], tmp_path: Path, maxmemory: str, status: str, code: int
) -> None:
    config = {"maxmemory-policy": "allkeys-lru", "maxmemory": maxmemory}
    with EmbeddedValkey(tmp_path / "valkey", appendonly=False, config=config) as server:
        env["REDIS_URL"] = server.url
        container = worker_container(tmp_path, env, concurrency=1)
        try:
            container.start()
            report = doctor()
        finally:
            container.remove()
    assert (report["redis memory"]["status"], report["redis durability"]["status"]) == (status, "warning")
    assert "noeviction" in report["redis memory"]["mend"]
    assert "appendfsync" in report["redis durability"]["mend"]
    assert report.code == code, "warnings do not fail"


def test_a_clock_that_differs(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ntime.time = lambda: real() + 60\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from inturn.cli import main; main()", "doctor", "--json"],
        env={
            **clean_environment(),
            **env,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), clean_environment()["PYTHONPATH"]]),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    report = Report(done.returncode, done.stdout)
    assert report["clock"]["status"] == "warning"
    assert "behind" in report["clock"]["found"]


def test_people_are_shown_the_mend_below_what_was_found(doctor: Doctor, env: dict[str, str]) -> None:
    done = CliRunner().invoke(app, ["doctor"], env={**env, "INTURN_AGENT": "nowhere:agent"})
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    (failed,) = [number for number, line in enumerate(lines) if line.startswith("failed") and "agent" in line]
    assert any("mend: set INTURN_AGENT" in line for line in lines[failed : failed + 4])
    assert lines[-1] == "2 failed"
