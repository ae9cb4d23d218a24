"""What Prometheus reads of a worker, whatever its pool, and of beat."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pytest_celery import CeleryTestWorker

from inturn.client import Client
from inturn.embedded.ports import free_port
from inturn.errors import TurnFailedError
from inturn.persistence import PersistenceAdapter
from inturn.session import create_session
from inturn.session.state import create_message
from tests.agents import let_go, read_journal
from tests.figures import Figures, scrape
from tests.integration.worker.conftest import StartWorker
from tests.nodes import ProcessContainer, clean_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.process


@pytest.fixture
def port() -> int:
    return free_port()


def counts(client: Client, port: int, done: int) -> Figures:
    """The figures once so many turns were counted: that is done after their results are stored."""

    def figures() -> Figures | None:
        found = scrape(port)
        idle = found("inturn_slots_busy") == 0
        return found if found("inturn_turns_total") >= done and idle else None

    found = wait_until(figures, timeout=60, what=f"{done} turns that are counted")
    assert found is not None
    return found


@pytest.mark.parametrize("pool", ["threads", "gevent", "prefork", "solo"])
def test_a_worker_counts_its_turns_on_every_pool(
    pool: str, start_worker: StartWorker, client: Client, port: int
) -> None:
    start_worker(pool=pool, concurrency=1 if pool == "solo" else 3, INTURN_METRICS_PORT=str(port))
    turns = [client.respond(session, "hello") for session in ("a", "b", "c", "a", "b")]
    turns.append(client.save_session("a", data={"name": "Ada"}))
    turns.append(client.respond("b", "hello", stream=True))
    for turn in turns:
        turn.get(timeout=60)
    with pytest.raises(TurnFailedError):
        client.respond("c", "refused").get(timeout=60)

    figures = counts(client, port, 8)

    assert figures("inturn_turns_total", kind="respond", outcome="done") == 6
    assert figures("inturn_turns_total", kind="respond", outcome="failed") == 1
    assert figures("inturn_turns_total", kind="save_session", outcome="done") == 1
    assert figures("inturn_turn_wait_seconds_count", kind="respond") == 7
    assert figures("inturn_turn_seconds_count", kind="respond") == 7
    assert figures("inturn_model_calls_total", model="Obedient", outcome="ok") == 6
    assert figures("inturn_model_calls_total", outcome="ProviderError") == 1
    assert figures("inturn_model_seconds_count", model="Obedient") == 7
    assert figures("inturn_model_first_token_seconds_count", model="Obedient") == 1
    assert figures("inturn_persistence_seconds_count", operation="commit") >= 7
    assert figures("inturn_slots") == (1 if pool == "solo" else 3)
    assert figures("process_cpu_seconds_total") > 0


def test_a_try_that_is_put_off_is_counted_with_its_reason(
    start_worker: StartWorker, client: Client, port: int
) -> None:
    start_worker(INTURN_RETRY_SECONDS="0.1", INTURN_SWEEP_SECONDS="0.2", INTURN_METRICS_PORT=str(port))
    client.respond("s", "unavailable 2").get(timeout=60)
    client.respond("s", "bug 1").get(timeout=60)

    figures = counts(client, port, 2)

    assert figures("inturn_turn_retries_total", reason="ProviderUnavailableError") == 2
    assert figures("inturn_turn_retries_total", reason="ValueError") == 1
    # A turn waits once, however often it is tried.
    assert figures("inturn_turn_wait_seconds_count") == 2


def test_what_two_owners_and_other_writers_cost_is_counted(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    port: int,
    fast: dict[str, str],
    journal: Path,
) -> None:
    paused = start_worker(INTURN_METRICS_PORT=str(port), **fast)
    taken_over = client.respond("s", "pause", stream=True)
    wait_until(lambda: read_journal(journal), what="the turn in hand")
    paused.kill("SIGSTOP")
    others = free_port()
    start_worker(INTURN_METRICS_PORT=str(others), INTURN_SWEEP_SECONDS="0.2")
    wait_until(lambda: len(read_journal(journal)) == 2, timeout=60, what="the turn in other hands")
    disturbed = client.respond("t", "pause too", stream=True)
    wait_until(lambda: len(read_journal(journal)) == 3, timeout=60, what="another turn in hand")
    said = create_message("t", "assistant", "somebody else was faster")
    store.commit(create_session("t"), [said], expected_version=0)
    let_go(journal)
    for turn in (taken_over, disturbed):
        turn.get(timeout=60)
    paused.kill("SIGCONT")

    def lost() -> bool:
        return scrape(port)("inturn_lease_losses_total", queue="turns") >= 1

    wait_until(lost, timeout=60, what="the worker that was paused to miss its lease")
    figures = counts(client, others, 2)
    assert figures("inturn_sessions_woken_total", queue="turns", reason="crash") >= 1
    assert figures("inturn_conflicts_total", writer="turn") == 1
    assert figures("inturn_lease_losses_total") == 0


def files_of(worker: CeleryTestWorker) -> Path:
    """Where a worker counts, by the file of its main process."""
    found = Path(tempfile.gettempdir()).glob(f"inturn-metrics-*/gauge_livesum_{worker.container.pid}.db")
    return next(found).parent


def test_children_that_have_ended_leave_no_files_even_if_nobody_asks_for_figures(
    start_worker: StartWorker, client: Client, port: int, fast: dict[str, str]
) -> None:
    worker = start_worker(pool="prefork", concurrency=1, INTURN_METRICS_PORT=str(port), **fast)
    for number in range(3):
        client.respond("s", f"number {number} will die 1").get(timeout=60)

    def owners() -> set[str]:
        found = {path.stem.rpartition("_")[2] for path in files_of(worker).glob("*.db")}
        return found - {"ended", str(worker.container.pid)}

    wait_until(lambda: len(owners()) == 1, timeout=60, what="files of the last child alone")
    assert counts(client, port, 3)("inturn_turns_total", outcome="done") == 3


def test_children_that_are_killed_take_nothing_along_and_leave_nothing_behind(
    start_worker: StartWorker, client: Client, port: int, fast: dict[str, str], journal: Path
) -> None:
    worker = start_worker(pool="prefork", concurrency=1, INTURN_METRICS_PORT=str(port), **fast)
    for number in range(3):
        client.respond("s", f"hello {number}").get(timeout=60)
        client.respond("s", f"number {number} will die 1").get(timeout=60)

    figures = counts(client, port, 6)
    children = {call.pid for call in read_journal(journal)}

    assert len(children) == 4
    assert figures("inturn_turns_total", outcome="done") == 6
    # A message that comes again once the lease has lapsed is faster than a sweep: not all are woken.
    woken = worker.logs().count("crashed=True")
    assert figures("inturn_sessions_woken_total", queue="turns", reason="crash") >= woken
    # Those that died had a task in hand; it is in nobody's now.
    assert figures("inturn_slots_busy") == 0
    owners = {path.stem.rpartition("_")[2] for path in files_of(worker).glob("*.db")}
    alive = children - {pid for pid in children if not Path(f"/proc/{pid}").exists()}
    assert owners - {"ended"} <= {str(pid) for pid in (worker.container.pid, *alive)}
    # And it stays so, however often they are asked.
    assert scrape(port)("inturn_turns_total", outcome="done") == 6


def test_what_a_worker_that_was_killed_has_left_the_next_one_removes(
    start_worker: StartWorker, port: int
) -> None:
    killed = start_worker(INTURN_METRICS_PORT=str(port))
    left = files_of(killed)
    killed.kill("SIGKILL")
    assert left.exists()

    other = start_worker(INTURN_METRICS_PORT=str(port))
    assert not left.exists()
    assert files_of(other).exists()
    directory = files_of(other)
    os.kill(other.container.pid, signal.SIGTERM)
    wait_until(
        lambda: not directory.exists(), timeout=60, what="a worker that ends and takes its files along"
    )


def test_a_port_that_is_taken_is_no_reason_not_to_work(
    start_worker: StartWorker, client: Client, port: int
) -> None:
    with socket.create_server(("127.0.0.1", port)):
        worker = start_worker(INTURN_METRICS_PORT=str(port))
        client.respond("s", "hello").get(timeout=60)

    assert "metrics not served" in worker.logs()


def test_without_the_setting_nothing_is_counted(start_worker: StartWorker, client: Client) -> None:
    worker = start_worker()
    client.respond("s", "hello").get(timeout=60)

    with pytest.raises(StopIteration):
        files_of(worker)


@pytest.fixture
def beat(tmp_path: Path, worker_env: dict[str, str], port: int) -> Iterator[ProcessContainer]:
    env = {
        **clean_environment(),
        **worker_env,
        "INTURN_METRICS_PORT": str(port),
        "INTURN_CLEANUP_SECONDS": "1",
    }
    command = [sys.executable, "-m", "celery", "-A", "worker", "beat", "-s", str(tmp_path / "schedule")]
    beat = ProcessContainer("beat", command, directory=tmp_path, env=env, prompt="metrics ready")
    beat.start()
    yield beat
    beat.remove()
    print(beat.tail())


def test_beat_tells_what_waits_in_all_sessions_and_what_it_asks_for(
    beat: ProcessContainer, client: Client, port: int
) -> None:
    for session in "abc":
        client.respond(session, "hello")

    assert scrape(port)("inturn_turns_waiting") == 3
    assert scrape(port)("inturn_redis_up") == 1
    assert scrape(port)("inturn_dead_letters") == 0
    wait_until(lambda: scrape(port)("inturn_beat_tasks_total") >= 1, timeout=90, what="beat's first task")


def test_figures_are_for_this_machine_unless_the_setting_says_otherwise(
    start_worker: StartWorker, port: int
) -> None:
    start_worker(INTURN_METRICS_PORT=str(port), INTURN_METRICS_HOST="127.0.0.2")

    with pytest.raises(httpx.ConnectError):
        scrape(port)
    assert httpx.get(f"http://127.0.0.2:{port}/metrics").status_code == 200
