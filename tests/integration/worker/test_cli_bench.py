"""`inturn bench`, as people run it, with real workers: its figures, and that it leaves nothing."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from inturn.cli import exits
from inturn.cli.bench import OURS
from inturn.client import Client
from inturn.embedded.tether import tethered
from inturn.persistence import PersistenceAdapter, SessionQuery
from inturn.session import create_session
from inturn.turns import Mailbox
from tests.integration.worker.conftest import StartWorker
from tests.integration.worker.test_cli import INTURN, inturn
from tests.nodes import clean_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.process

Bench = Callable[..., tuple[int, Any, str]]
SMALL = ("--turns", "24", "--sessions", "6", "--producers", "3")


@pytest.fixture
def env(worker_env: dict[str, str]) -> dict[str, str]:
    return {name: worker_env[name] for name in ("REDIS_URL", "DATABASE_URL")}


@pytest.fixture
def bench(env: dict[str, str], tmp_path: Path) -> Bench:
    def run(*args: str, **changed: str) -> tuple[int, Any, str]:
        done = inturn("bench", *args, "--json", cwd=tmp_path, **(env | changed))
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    return run


@pytest.fixture
def bystander(store: PersistenceAdapter) -> None:
    """A session whose name looks a little like that of a bench."""
    store.commit(create_session("inturn-bench:mine", user_id="inturn-bench"), expected_version=0)


def ids(store: PersistenceAdapter) -> list[str]:
    return [session.id for session in store.find_sessions(SessionQuery(limit=1000)).items]


def keys_of_benches(broker_url: str) -> list[str]:
    with Redis.from_url(broker_url, decode_responses=True) as redis:
        # What a session has done is known until it expires, so that a late message is not taken twice.
        return [key for key in redis.scan_iter("*inturn-bench*") if ":d:" not in key and redis.ttl(key) < 0]


@pytest.mark.usefixtures("bystander")
def test_it_prints_figures_and_a_verdict_and_leaves_nothing(
    bench: Bench, start_worker: StartWorker, store: PersistenceAdapter, broker_url: str, mailbox: Mailbox
) -> None:
    start_worker()
    code, told, said = bench(*SMALL)

    assert code == exits.DONE, said
    assert (told["ok"], told["turns"], told["answered"], told["sessions"]) == (True, 24, 24, 6)
    assert (told["violations"], told["left"]) == ({}, 0)
    for name in ("acceptance_ms", "reply_ms"):
        assert 0 < told[name]["p50"] <= told[name]["p95"] <= told[name]["p99"] <= told[name]["max"]
    assert told["accepted_per_second"] > 0 < told["done_per_second"]
    assert "which are deleted at the end" in said
    assert ids(store) == ["inturn-bench:mine"]
    assert mailbox.depth() == 0
    assert keys_of_benches(broker_url) == []


def test_turns_that_fail_are_exit_code_1(
    bench: Bench, start_worker: StartWorker, store: PersistenceAdapter
) -> None:
    start_worker()
    code, told, _ = bench("--turns", "4", "--sessions", "2", "--text", "hello")
    assert (code, told["failed"]) == (exits.DONE, 0)

    # Its own first turn, by which it sees whether there is a worker, fails too.
    code, told, said = bench("--turns", "4", "--sessions", "2", "--text", "refused")
    assert (code, told, said.splitlines()[-1].startswith("inturn: ")) == (exits.FAILED, None, True)
    assert ids(store) == []


def test_without_a_worker_nothing_is_left_waiting(
    bench: Bench, store: PersistenceAdapter, mailbox: Mailbox
) -> None:
    code, told, said = bench(*SMALL, "--timeout", "0.5")

    assert (code, told) == (exits.TIMED_OUT, None)
    assert "no worker has answered within 0.5 s" in said
    assert (mailbox.depth(), ids(store)) == (0, [])


def test_another_store_than_the_workers_is_found_out(
    bench: Bench, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker()
    code, _, said = bench(*SMALL, DATABASE_URL=f"sqlite:///{tmp_path}/another.db")
    assert (code, "set DATABASE_URL as they have it" in said) == (exits.WRONG, True)
    code, _, said = bench(*SMALL, DATABASE_URL="memory://")
    assert (code, "set DATABASE_URL as they have it" in said) == (exits.WRONG, True)


@pytest.mark.usefixtures("bystander")
def test_ctrl_c_ends_it_in_order_and_a_killed_one_is_cleaned_up_later(
    env: dict[str, str],
    bench: Bench,
    start_worker: StartWorker,
    store: PersistenceAdapter,
    client: Client,
    mailbox: Mailbox,
    tmp_path: Path,
) -> None:
    start_worker(concurrency=2)
    many = ["bench", "--turns", "4000", "--sessions", "40", "--text", "slowly 0.01 count 20"]

    def started() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            tethered([INTURN, *many]),
            cwd=tmp_path,
            env={**clean_environment(), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: mailbox.depth() > 50, timeout=60, what="turns to wait")
        return process

    stopped = started()
    stopped.send_signal(signal.SIGINT)
    out, said = stopped.communicate(timeout=120)
    assert (stopped.returncode, out, "Traceback" in said) == (exits.INTERRUPTED, "", False)
    wait_until(lambda: mailbox.depth() == 0)
    assert ids(store) == ["inturn-bench:mine"]

    killed = started()
    killed.kill()
    killed.communicate()
    other = client.respond("mine", "hello")
    code, told, said = bench("--clean")
    assert (code, told["left"]) == (exits.DONE, 0), said
    assert told["removed"] > 0
    assert [each for each in ids(store) if OURS.fullmatch(each)] == []
    assert other.get(timeout=60).message, "nobody else's turn is dropped"
    assert {"inturn-bench:mine", "mine"} == set(ids(store))
