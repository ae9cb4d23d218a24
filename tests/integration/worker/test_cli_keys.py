"""`inturn keys`, as people run it, over a store in a file; and the rotation that beat asks a worker for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from celery import Celery
from typer.testing import CliRunner, Result

from inturn.cli import app
from inturn.contract import MAINTENANCE_QUEUE, ROTATE_KEYS
from inturn.keyring import KeyRing, create_key
from inturn.persistence import EncryptedAdapter, PersistenceAdapter
from inturn.session import create_session
from inturn.session.state import TurnRecord, create_message
from inturn.settings import load_settings
from tests.integration.worker.conftest import StartWorker
from tests.nodes import clean_environment
from worker.schedule import beat_schedule

Run = Callable[..., Result]
OLD, NEW = create_key("old"), create_key("new")
ALL = {"sessions": 1, "messages": 1, "turns": 1}
NONE = dict.fromkeys(ALL, 0)


@pytest.fixture
def run(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)

    def run(*args: str, keys: str = "") -> Result:
        env = {"DATABASE_URL": store_url, "REDIS_URL": "redis://127.0.0.1:1", "COLUMNS": "160"}
        return CliRunner().invoke(app, ["keys", *args], env={**env, "INTURN_ENCRYPTION_KEYS": keys})

    return run


def write(store: PersistenceAdapter, keys: str, session_id: str = "s") -> None:
    EncryptedAdapter(store, KeyRing.read_text(keys)).commit(
        create_session(session_id),
        [create_message(session_id, "user", "hello")],
        expected_version=0,
        turn=TurnRecord(session_id=session_id, turn_id="t"),
    )


def status(run: Run, keys: str) -> dict[str, object]:
    told: dict[str, object] = json.loads(run("status", "--json", keys=keys).stdout)
    return told


def test_a_new_key_is_one_line_that_the_setting_takes(run: Run) -> None:
    printed = run("new", "2027-01").stdout
    assert KeyRing.read_text(printed).ids == ["2027-01"]
    assert len(run("new").stdout.splitlines()) == 1
    assert run("new", "no spaces").exit_code != 0


def test_a_key_may_be_removed_once_everything_is_sealed_with_another(
    run: Run, store: PersistenceAdapter
) -> None:
    write(store, OLD)
    both = f"{NEW},{OLD}"
    assert status(run, both) == {
        "keys": {"new": NONE, "old": ALL},
        "plain": NONE,
        "missing": [],
        "removable": [],
        "unreadable": [],
    }
    assert "`inturn keys rotate` seals all of it" in run("status", keys=both).stdout
    assert "3 rows of 1 sessions were sealed with key new" in run("rotate", keys=both).stdout
    assert status(run, both)["removable"] == ["old"]
    assert "may be removed" in run("status", keys=both).stdout
    assert status(run, NEW)["keys"] == {"new": ALL}


def test_a_key_that_is_missing_is_named(run: Run, store: PersistenceAdapter) -> None:
    write(store, OLD)
    write(store, NEW, "other")
    told = run("status", keys=NEW)
    assert told.exit_code == 1
    assert "key old is missing" in told.stdout
    rotated = run("rotate", "--json", keys=NEW)
    assert (rotated.exit_code, json.loads(rotated.stdout)["unreadable"]) == (1, 1)
    assert status(run, NEW)["missing"] == ["old"]


def test_no_command_shows_a_key(run: Run, store: PersistenceAdapter) -> None:
    write(store, OLD)
    secret = OLD.partition(":")[2]
    for command in ("status", "rotate"):
        for keys in (OLD, f"{OLD}x", secret, f"bad id:{secret}"):
            result = run(command, keys=keys)
            assert secret not in result.output + str(result.exception)


@pytest.mark.process
def test_beat_asks_for_rotation_where_there_are_keys_and_a_worker_does_it_once(
    start_worker: StartWorker, celery_setup_app: Celery, store: PersistenceAdapter
) -> None:
    assert "rotation" not in beat_schedule(load_settings())
    assert beat_schedule(load_settings(encryption_keys=NEW))["rotation"]["task"] == ROTATE_KEYS
    write(store, OLD)
    start_worker(INTURN_ENCRYPTION_KEYS=f"{NEW},{OLD}")

    def asked() -> dict[str, object]:
        result = celery_setup_app.send_task(ROTATE_KEYS, queue=MAINTENANCE_QUEUE)
        told: dict[str, object] = result.get(timeout=30)
        return told

    done = {"key": "new", "sessions": 1, "rewritten": 3, "unreadable": 0, "cursor": None, "resting": True}
    assert asked() == done
    write(store, OLD, "other")
    assert asked() == done, "it rests"
    found = EncryptedAdapter(store, KeyRing.read_text(NEW)).load("s", last_messages=1, turn_id="t")
    assert found is not None
    assert found.messages[0].content == "hello"
