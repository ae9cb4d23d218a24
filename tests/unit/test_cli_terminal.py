"""The command between a terminal and a pipe: colours, progress, closed pipes, Ctrl-C, completion."""

from __future__ import annotations

import json
import os
import pty
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from inturn.audit.log import AuditLog
from inturn.cli import app, exits
from inturn.embedded.tether import tethered
from tests.nodes import clean_environment
from tests.waiting import wait_until

Here = Callable[..., Result]
INTURN = str(Path(sys.executable).parent / "inturn")


class OnTerminal:
    """A command with its standard error on a terminal of 80 columns, and its output in a pipe."""

    def __init__(self, *args: str, cwd: Path, **env: str) -> None:
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            tethered([INTURN, *args]),
            cwd=cwd,
            env={**clean_environment(), "COLUMNS": "80", "TERM": "xterm-256color", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
        )
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # how a terminal tells that nobody writes to it any more
            while more := os.read(ours, 65536):
                shown += more
        os.close(ours)
        self.terminal = shown.decode()
        self.output, _ = self.process.communicate(timeout=60)
        self.code = self.process.returncode


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """An audit log of one record."""
    AuditLog(tmp_path / "audit").append("read", session_ids=["s0"], call="load")
    return tmp_path / "audit"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Run it in this process, where no server is."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    env = {"REDIS_URL": "redis://127.0.0.1:1/0", "DATABASE_URL": f"sqlite:///{tmp_path}/sessions.db"}
    return lambda *args: CliRunner().invoke(app, [*args], env=env)


def run(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INTURN, *args],
        cwd=cwd,
        env={**clean_environment(), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
def test_a_closed_pipe_ends_it_without_a_word(as_json: list[str], log: Path, tmp_path: Path) -> None:
    (file,) = log.iterdir()
    file.write_bytes(file.read_bytes() * 5000)  # more than a pipe holds
    command = [INTURN, "audit", "show", "--dir", str(log), *as_json]
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"s0" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == exits.CLOSED_PIPE


def test_progress_is_for_terminals_and_never_in_the_output(log: Path, tmp_path: Path) -> None:
    args = ("audit", "verify", "--dir", str(log), "--json")
    piped = run(*args, cwd=tmp_path)
    shown = OnTerminal(*args, cwd=tmp_path)

    assert (piped.stderr, "verifying" in shown.terminal) == ("", True)
    assert piped.stdout == shown.output
    assert json.loads(shown.output)["ok"]
    assert shown.output.count("\n") == 1


def test_what_is_printed_while_progress_is_shown_stays_in_the_output(tmp_path: Path, redis_url: str) -> None:
    env = {"REDIS_URL": redis_url, "INTURN_KEY_PREFIX": f"test-{secrets.token_hex(4)}"}
    shown = OnTerminal("users", "export", "nobody", cwd=tmp_path, **env)

    assert (shown.code, json.loads(shown.output)["user_id"]) == (exits.DONE, "nobody")
    assert "exported_at" not in shown.terminal


def test_colours_are_for_terminals_that_want_them(tmp_path: Path) -> None:
    plain = run("--nothing", cwd=tmp_path).stderr
    assert plain.startswith("inturn: ")
    assert "\x1b" not in plain
    assert "\x1b[31m" in OnTerminal("--nothing", cwd=tmp_path).terminal
    assert "\x1b" not in OnTerminal("--nothing", cwd=tmp_path, NO_COLOR="1").terminal


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--nothing"], "no such option: --nothing; `inturn --help` shows what there is"),
        (["session"], "no such command 'session'"),
        (["turns", "show"], "missing argument 'TURN'; `inturn turns show --help` shows what there is"),
        (["bench", "--turns", "many"], "invalid value for '--turns'"),
        (["sessions", "list", "--status", "gone"], "invalid value for '--status'"),
        (["turns", "dead", "--older-than", "long"], "write one like 90s"),
        (["turns", "retry"], "name a turn"),
        (["respond", "s", ""], "must not be empty"),
        (["replay", "nowhere.jsonl"], "nowhere.jsonl"),
        (["audit", "show", "--dir", "nowhere"], "INTURN_AUDIT_LOG"),
        (["keys", "new", "no spaces"], "key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line_that_says_what_to_do(args: list[str], words: str, here: Here) -> None:
    done = here(*args)

    assert (done.exit_code, done.stdout) == (exits.WRONG, "")
    assert done.stderr.startswith("inturn: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_that_is_away_is_told_apart_from_wrong_use(here: Here) -> None:
    for args in (["turns", "list"], ["sessions", "show", "s"], ["bench"], ["retention", "list"]):
        done = here(*args)
        assert (done.exit_code, "Redis cannot be reached" in done.stderr) == (exits.AWAY, True), args
    assert here("doctor", "--canary", "--timeout", "1").exit_code == exits.FAILED


def test_the_name_of_a_group_shows_its_commands(here: Here) -> None:
    shown = here("turns")

    assert (shown.exit_code, "cancel" in shown.output) == (exits.WRONG, True)


def test_ctrl_c_ends_it_without_a_word(tmp_path: Path, redis_url: str) -> None:
    prefix = f"test-{secrets.token_hex(4)}"
    env = {"REDIS_URL": redis_url, "INTURN_KEY_PREFIX": prefix, "INTURN_BROKER_URL": "memory://"}
    with (
        subprocess.Popen(
            tethered([INTURN, "respond", "s", "nobody answers"]),
            cwd=tmp_path,
            env={**clean_environment(), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        Redis.from_url(redis_url, decode_responses=True) as redis,
    ):
        wait_until(lambda: list(redis.scan_iter(f"{prefix}:*:q:s")), timeout=60, what="the turn to wait")
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
        redis.delete(*redis.scan_iter(f"{prefix}:*"))

    assert (process.returncode, out, said) == (exits.INTERRUPTED, "", "")


def test_bash_completes_commands_options_and_choices_and_nobody_s_sessions(tmp_path: Path) -> None:
    env = {**clean_environment(), "HOME": str(tmp_path)}

    def bash(script: str) -> str:
        done = subprocess.run(
            ["bash", "--norc", "-c", script],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    # Not the last command: bash would become it, and it could not see which shell it runs in.
    assert "installed" in bash("inturn --install-completion; true")

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        asked = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _inturn_completion inturn"
        return bash(f'source ~/.bashrc; {asked}; echo "${{COMPREPLY[@]}}"').split()

    assert complete("inturn", "sess") == ["sessions"]
    assert complete("inturn", "bench", "--pro") == ["--producers"]
    assert complete("inturn", "sessions", "list", "--status", "") == ["active", "completed", "abandoned"]
    assert complete("inturn", "sessions", "show", "") == []


def test_zsh_is_told_what_commands_there_are(tmp_path: Path) -> None:
    script = run(cwd=tmp_path, _INTURN_COMPLETE="source_zsh")
    assert script.stdout.lstrip().startswith("#compdef inturn")
    told = run(cwd=tmp_path, _INTURN_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="inturn sess")
    assert '"sessions"' in told.stdout
