"""The command, as people run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from inturn.embedded.ports import free_port
from inturn.embedded.tether import tethered
from inturn.embedded.valkey import EmbeddedValkey
from inturn.persistence import PersistenceAdapter
from tests.agents import let_go, reply_to
from tests.integration.worker.conftest import StartWorker
from tests.nodes import ROOT, clean_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.process

INTURN = str(Path(sys.executable).parent / "inturn")


def inturn(*args: str, cwd: Path, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INTURN, *args],
        cwd=cwd,
        env={**clean_environment(), "COLUMNS": "100", **env},
        input=text,
        capture_output=True,
        text=True,
        timeout=100,
    )


class Dev:
    def __init__(self, folder: Path, *args: str, **env: str) -> None:
        self.port = free_port()
        self.log = folder / "dev.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                tethered([INTURN, "dev", "--port", str(self.port), *args]),
                cwd=folder,
                env={**clean_environment(), **env},
                stdout=log,
                stderr=log,
            )

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/readyz")
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and " ready." in self.log.read_text()


class Terminal:
    """A command that runs while the test types and reads what it prints."""

    def __init__(self, folder: Path, args: list[str], **env: str) -> None:
        self._output = folder / "terminal.log"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                tethered([INTURN, *args]),
                cwd=folder,
                env={**clean_environment(), "COLUMNS": "100", **env},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
            )

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def shown(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.shown(), timeout=30, what=repr(text))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    running = Dev(tmp_path_factory.mktemp("dev"))
    wait_until(running.ready, timeout=60)
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(60)


def test_dev_runs_everything_and_respond_finds_it(dev: Dev) -> None:
    folder = dev.log.parent
    first = inturn("respond", "s", "A table for four, please", "--json", cwd=folder)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["data"] == {"party_size": 4}

    again = inturn("respond", "s", "tomorrow", "--turn-id", "e1", cwd=folder)
    assert (again.returncode, bool(again.stdout.strip())) == (0, True)
    repeated = inturn("respond", "s", "tomorrow", "--turn-id", "e1", cwd=folder)
    assert repeated.stdout == again.stdout

    web = httpx.post(
        f"http://127.0.0.1:{dev.port}/sessions/s/turns",
        json={"message": "at 7 pm"},
        headers={"Prefer": "wait=20"},
    )
    assert web.json()["reply"]["data"]["time"] == "19:00:00"


def test_a_chat_goes_through_the_queue(dev: Dev) -> None:
    chat = inturn("chat", "--session", "chat", cwd=dev.log.parent, text="a table for two\n\n")

    assert chat.returncode == 0, chat.stderr
    assert "party_size=2" in chat.stdout
    assert chat.stdout.count("bot>") == 1

    text = "at 7 pm\nfor the 31st of February, please\n"
    piped = inturn("chat", "--session", "chat", "--json", cwd=dev.log.parent, text=text)
    first, second = (json.loads(line) for line in piped.stdout.splitlines())
    assert (piped.returncode, first["data"]["time"], second["session_id"]) == (0, "19:00:00", "chat")


def test_a_reply_is_printed_as_it_is_written(
    tmp_path: Path, start_worker: StartWorker, broker_url: str, journal: Path
) -> None:
    start_worker()
    command = ["respond", "s", "one pause two", "--stream"]
    with Terminal(tmp_path, command, REDIS_URL=broker_url) as terminal:
        terminal.wait_for("you said: one ")
        assert terminal.process.poll() is None
        let_go(journal)

        assert terminal.process.wait(30) == 0
    assert terminal.shown() == "you said: one pause two\n"


def test_of_a_streamed_turn_that_fails_the_fallback_message_is_printed_and_the_exit_code_is_1(
    tmp_path: Path, start_worker: StartWorker, broker_url: str
) -> None:
    start_worker()
    answer = inturn("respond", "s", "refused", "--stream", cwd=tmp_path, REDIS_URL=broker_url)

    assert (answer.returncode, answer.stdout) == (1, "Sorry, that did not work.\n")
    assert "failed" in answer.stderr


def test_ctrl_c_stops_the_reply_and_not_the_chat(
    tmp_path: Path, start_worker: StartWorker, broker_url: str, store: PersistenceAdapter
) -> None:
    start_worker()
    message = "slowly 0.02 count 2000"
    with Terminal(tmp_path, ["chat", "--session", "s"], REDIS_URL=broker_url) as terminal:
        terminal.type(message)
        terminal.wait_for("bot> you said: slowly")
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("stopped")
        terminal.type("and now?")
        terminal.wait_for("bot> you said: and now?")
        terminal.type("")

        assert terminal.process.wait(30) == 0
    loaded = store.load("s", last_messages=10)
    assert loaded is not None
    [_, stopped, *_] = loaded.messages
    assert reply_to(message) != stopped.content
    assert f"bot> {stopped.content}\n" in terminal.shown(), "what was printed is what is recorded"


def test_a_replay_reports_and_exits_by_its_verdict(dev: Dev) -> None:
    folder = dev.log.parent
    lines = [{"session_id": f"r{n % 3}", "text": f"a table for {n + 1}"} for n in range(9)]
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    replayed = inturn("replay", "lines.jsonl", cwd=folder)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "turns accepted 9, committed 9, lost 0" in replayed.stdout

    as_json = inturn("replay", "lines.jsonl", "--json", cwd=folder)
    assert json.loads(as_json.stdout)["known"] == 9, "the same file again adds nothing"


def test_ctrl_c_stops_dev_in_order(tmp_path: Path, valkey: EmbeddedValkey) -> None:
    # Named by its other name, the server is used, and no embedded one is started beside it.
    running = Dev(tmp_path, "--json", INTURN_REDIS_URL=valkey.url)
    wait_until(running.ready, timeout=60)
    assert not (tmp_path / ".inturn" / "dev" / "valkey").exists()
    # The page may be there before the others have said a word; they are stopped once they are at work.
    at_work = ("worker ready", "beat: Starting")
    wait_until(lambda: all(words in running.log.read_text() for words in at_work), timeout=60)

    os.kill(running.process.pid, signal.SIGINT)

    assert running.process.wait(60) == 0
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    assert {line["process"] for line in lines} == {"worker", "delivery", "beat", "web", "inturn"}
    said = "\n".join(line["line"] for line in lines)
    assert "Warm shutdown" in said
    assert "Traceback" not in said
    assert lines[-1] == {"process": "inturn", "line": "stopped"}


@pytest.mark.long
def test_the_demo_shows_its_verdict(tmp_path: Path) -> None:
    conversations = ROOT / "examples" / "conversations.jsonl"
    # A shell that is set up for somebody's servers: nothing of the demo may reach them.
    elsewhere = {
        f"INTURN_{name}": "redis://127.0.0.1:1/0" for name in ("REDIS_URL", "BROKER_URL", "RESULT_BACKEND")
    }
    elsewhere["INTURN_DATABASE_URL"] = "postgresql://127.0.0.1:1/nowhere"
    shown = inturn("demo", "--file", str(conversations), "--speed", "20", cwd=tmp_path, **elsewhere)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "was killed (SIGKILL)" in shown.stdout
    assert "lost 0, duplicated 0, out of order 0, overlapping 0" in shown.stdout


def test_without_servers_the_message_says_so(tmp_path: Path) -> None:
    answer = inturn("respond", "s", "hi", cwd=tmp_path, REDIS_URL="redis://127.0.0.1:1/0")

    assert answer.returncode == 4
    assert "Redis cannot be reached" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["respond", "s", ""], "must not be empty"),
        (["replay", "nowhere.jsonl"], "nowhere.jsonl"),
        (["demo", "--file", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], words: str, tmp_path: Path, redis_url: str
) -> None:
    answer = inturn(*args, cwd=tmp_path, REDIS_URL=redis_url)

    assert answer.returncode == 2
    assert words in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
