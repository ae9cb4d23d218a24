"""The quick start: every command and program of the page, up to replies in Slack's format."""

from __future__ import annotations

import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inturn.embedded.ports import free_port
from tests.nodes import ROOT, ProcessContainer, clean_environment
from tests.pages import examples, printed, run, write
from tests.waiting import wait_until

PAGE = (ROOT / "docs" / "quickstart.md").read_text()
EXAMPLES = examples(PAGE)


def test_the_agent_prints_what_the_page_says(tmp_path: Path) -> None:
    write(EXAMPLES, tmp_path)

    assert run(tmp_path, "sh", "library.sh") == printed(EXAMPLES["library.py"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The checkout as far as the page names it, with the page's files, and ports of our own in them."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    folder = tmp_path / "my-agent"
    folder.mkdir()
    web, slack = free_port(), free_port()
    for name, code in EXAMPLES.items():
        code = code.replace("127.0.0.1:8090", f"127.0.0.1:{slack}").replace(":8000", f":{web}")
        code = re.sub(r"^inturn dev$", f"inturn dev --port {web}", code, flags=re.M)
        code = re.sub(r"local_slack.py$", f"local_slack.py http://127.0.0.1:{web}", code, flags=re.M)
        (folder / name).write_text(code)
    return folder


@pytest.fixture
def env() -> dict[str, str]:
    return {**clean_environment(), "INTURN_KEY_PREFIX": f"inturn-test-{secrets.token_hex(4)}"}


@pytest.fixture
def dev(folder: Path, env: dict[str, str]) -> Iterator[ProcessContainer]:
    dev = ProcessContainer("dev", ["sh", "run.sh"], directory=folder, env=env, prompt="web ready")
    dev.start()
    yield dev
    dev.remove()
    print(dev.tail())


@pytest.mark.process
def test_the_agent_answers_in_the_format_of_slack(
    folder: Path, env: dict[str, str], dev: ProcessContainer
) -> None:
    def say(text: str) -> str:
        return run(folder, "sh", "-c", f"printf '%s\\n' '{text}' | sh slack.sh", env=env)

    said = EXAMPLES["said.txt"].splitlines()
    assert "".join(say(text) for text in said) == EXAMPLES["posted.txt"]

    if not (shutil.which("curl") and shutil.which("openssl")):
        pytest.skip("there is no curl, or no openssl, on this machine")
    slack = ProcessContainer(
        "slack", ["sh", "-c", "sleep 600 | sh slack.sh"], directory=folder, env=env, prompt=""
    )
    slack.start()
    try:
        assert [run(folder, "sh", "event.sh", env=env) for _ in range(2)] == ["200\n", "200\n"]
        wait_until(lambda: b"We are open" in slack.logs(), timeout=60)
        # What was taken after both has its reply after theirs.
        other = (
            (folder / "event.sh")
            .read_text()
            .replace("000100", "000200")
            .replace("When are you open", "Hello")
        )
        (folder / "event.sh").write_text(other)
        assert run(folder, "sh", "event.sh", env=env) == "200\n"
        wait_until(lambda: slack.logs().count(b"chat.postMessage") > 1, timeout=60)
    finally:
        slack.remove()
    assert slack.logs().count(b"We are open") == 1

    forged = re.sub("SIGNING_SECRET=.*", "SIGNING_SECRET=another", (folder / "environment.sh").read_text())
    (folder / "environment.sh").write_text(forged)
    assert run(folder, "sh", "event.sh", env=env).endswith("401\n")
