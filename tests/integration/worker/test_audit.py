"""The audit log of running processes: who is named in it, and that it is whole whatever happens to them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inturn.audit.reading import read_audit_log, verify_audit_log
from inturn.client import Client
from inturn.persistence import PersistenceAdapter
from tests.agents import reply_to
from tests.integration.worker.conftest import StartWorker, WebHere
from tests.integration.worker.test_cli import inturn
from tests.waiting import wait_until
from tests.web import BACKEND, KEYS, SECRET, signed

pytestmark = pytest.mark.process

KEY = "a key of sixteen characters or more"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def worker_env(worker_env: dict[str, str], directory: Path) -> dict[str, str]:
    return {**worker_env, "INTURN_AUDIT_LOG": str(directory), "INTURN_AUDIT_KEY": KEY}


def records(directory: Path, **which: Any) -> list[dict[str, Any]]:
    return list(read_audit_log(directory, **which))


def actors(directory: Path, **which: Any) -> set[tuple[str, str]]:
    return {(record["actor"].partition("@")[0], record["action"]) for record in records(directory, **which)}


def audit(*args: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return inturn("audit", *args, cwd=cwd, **env)


def test_all_who_use_a_session_are_named_and_nothing_that_was_said(
    start_worker: StartWorker,
    here: WebHere,
    client: Client,
    directory: Path,
    tmp_path: Path,
    worker_env: dict[str, str],
) -> None:
    start_worker()
    web = here(api_keys=KEYS, jwt_secret=SECRET, audit_log=directory, audit_key=KEY)
    said = "zebra crossing"
    client.respond("s", said, user_id="ada", turn_id="1").get()
    assert web.get("/sessions/s", headers=signed("ada")).status_code == 200
    assert web.get("/sessions/s/messages", headers=BACKEND).status_code == 200
    assert web.get("/sessions/s", headers=signed("bob")).status_code == 404
    assert web.delete("/sessions/s", headers=signed("ada")).status_code == 204

    named = actors(directory, session_id="s")
    assert {
        ("user:ada", "read"),
        ("key:backend", "read"),
        ("user:bob", "read"),
        ("user:ada", "erase"),
    } <= named
    assert {action for actor, action in named if actor.startswith("worker:")} == {"read", "change"}
    (change,) = [each for each in records(directory, session_id="s") if each.get("version") == 0]
    assert (change["user"], change["turn"]) == ("ada", "s:1")
    assert all(said not in path.read_text() for path in directory.iterdir())

    shown = audit("show", "--session", "s", "--json", cwd=tmp_path, env=worker_env)
    assert [json.loads(line) for line in shown.stdout.splitlines()] == records(directory, session_id="s")
    verified = audit("verify", cwd=tmp_path, env=worker_env)
    assert verified.returncode == 0, verified.stdout
    assert "whole: " in verified.stdout


def test_the_command_names_the_first_broken_place(
    start_worker: StartWorker, client: Client, directory: Path, tmp_path: Path, worker_env: dict[str, str]
) -> None:
    start_worker()
    client.respond("s", "hello").get()
    anchor = tmp_path / "heads.json"
    anchor.write_text(audit("verify", "--json", cwd=tmp_path, env=worker_env).stdout)
    (path,) = directory.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)

    path.write_bytes(b"".join(lines[:-1]))
    anchored = audit("verify", "--anchor", str(anchor), cwd=tmp_path, env=worker_env)
    path.write_bytes(b"".join(lines).replace(b'"action":"read"', b'"action":"open"', 1))
    changed = audit("verify", "--json", cwd=tmp_path, env=worker_env)

    assert anchored.returncode == changed.returncode == 1
    assert "is anchored" in anchored.stdout
    (broken,) = json.loads(changed.stdout)["broken"]
    assert (broken["file"], broken["line"]) == (path.name, 2)


def test_a_killed_worker_leaves_it_whole(
    start_worker: StartWorker,
    client: Client,
    directory: Path,
    store: PersistenceAdapter,
    fast: dict[str, str],
) -> None:
    first = start_worker(**fast)
    handles = [client.respond(f"s{number}", "hello") for number in range(30)]
    handles[0].get()
    first.kill("SIGKILL")
    start_worker(**fast)
    for handle in handles:
        assert handle.get().message == reply_to("hello")

    found = verify_audit_log(directory, key=KEY)
    assert (found.broken, len(found.heads)) == ([], 2)
    # Every commit that is in the store is in the log.
    committed = {each["turn"] for each in records(directory) if each.get("call") == "commit"}
    assert {handle.turn_id for handle in handles} <= committed


def test_while_it_cannot_be_written_turns_wait_and_nothing_is_shown(
    start_worker: StartWorker, here: WebHere, client: Client, directory: Path, fast: dict[str, str]
) -> None:
    directory.write_text("")  # a file where the directory should be
    start_worker(**fast)
    web = here(audit_log=directory, audit_key=KEY)
    handle = client.respond("s", "hello")

    assert web.get("/sessions/s").status_code == 503
    wait_until(lambda: handle.status() == "waiting")
    directory.unlink()

    assert handle.get().message == reply_to("hello")
    wait_until(lambda: web.get("/sessions/s").status_code == 200)
    assert verify_audit_log(directory, key=KEY).broken == []
