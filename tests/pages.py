"""Pages of the documentation: the programs in them, and what these are said to print."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.nodes import clean_environment


def examples(page: str) -> dict[str, str]:
    """The blocks that are marked `<!-- example: name -->`, by that name, in the order of the page."""
    return dict(re.findall(r"^<!-- example: (\S+) -->\n```\w+\n(.*?)^```$", page, re.M | re.S))


def write(found: dict[str, str], directory: Path) -> None:
    """Write examples to the files that they are named after."""
    for name, code in found.items():
        (directory / name).write_text(code)


def run(directory: Path, *command: str, env: dict[str, str] | None = None) -> str:
    """Run a program in `directory`, with nothing set but `env`; gives what it prints."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={**clean_environment(), "PYTHONWARNINGS": "error", **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def printed(code: str) -> str:
    """What an example says it prints: its lines that begin with `# `."""
    return "".join(f"{line}\n" for line in re.findall(r"^ *# (.*)$", code, re.M))


def snippets(page: str) -> list[tuple[str, str]]:
    """The blocks that are marked `<!-- snippet -->`: language and code, in the order of the page."""
    return re.findall(r"^<!-- snippet -->\n```(\w+)\n(.*?)^```$", page, re.M | re.S)
