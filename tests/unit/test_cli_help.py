"""The command as its help shows it: examples, options, widths, what is loaded, completion, and docs/cli.md.

Run as a program (`python -m tests.unit.test_cli_help`) it writes docs/cli.md anew.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import typer.main

from inturn.cli import app, exits
from inturn.errors import InturnError
from tests.nodes import ROOT, clean_environment

PAGE = ROOT / "docs" / "cli.md"
HEAVY = (
    *("alembic", "celery", "cryptography", "fastapi", "fsspec", "httpx", "jinja2", "kombu", "opensearchpy"),
    *("openai", "opentelemetry", "prometheus_client", "psycopg", "pydantic_settings", "pymongo"),
    *("redis", "sqlalchemy", "starlette", "structlog", "uvicorn", "inturn.client", "inturn.settings"),
)
"""What no help needs. Typer itself loads pydantic where a command has options."""
ALL_HELP = """
import sys
from typer.testing import CliRunner
from inturn.cli import app
for line in sys.stdin.read().splitlines():
    done = CliRunner().invoke(app, [*line.split(), "--help"])
    assert done.exit_code == 0, line
    print(done.stdout)
print(*sys.modules, sep="\\n", file=sys.stderr)
"""


def commands(path: tuple[str, ...] = (), group: Any = None) -> Iterator[tuple[str, Any]]:
    """All commands but groups, each with the words that name it."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands((*path, name), command)
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())


@cache
def all_help() -> subprocess.CompletedProcess[str]:
    """The help of everything, on 80 columns, from one process that does nothing else."""
    names = ["", *{name.partition(" ")[0] for name in COMMANDS if " " in name}, *COMMANDS]
    return subprocess.run(
        [sys.executable, "-c", ALL_HELP],
        env={**clean_environment(), "COLUMNS": "80"},
        input="\n".join(names),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )


def example(command: Any) -> str:
    found = re.fullmatch(r"Example: (.+)", command.epilog or "")
    assert found, f"{command.name} has no example"
    return found[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_parses(name: str) -> None:
    root = typer.main.get_command(app)
    text = re.sub(r"^(\w+=\S+ )+", "", example(COMMANDS[name]))
    words = shlex.split(re.split(r" (?:\|\||\||>) ", text)[0])
    assert words[: 1 + len(name.split())] == ["inturn", *name.split()]

    context = root.make_context("inturn", words[1:])
    command: Any = root
    rest = words[1:]
    while hasattr(command, "commands"):
        _, command, rest = command.resolve_command(context, rest)
    assert command.make_context(name, list(rest), parent=context).params is not None


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json_and_says_what_each_option_is(name: str) -> None:
    params = COMMANDS[name].params
    assert [param for param in params if "--json" in param.opts]
    assert [param.name for param in params if not param.help] == []


def test_what_cannot_be_undone_asks_and_can_be_tried() -> None:
    asking = {name for name, command in COMMANDS.items() if any("--yes" in p.opts for p in command.params)}
    trying = {
        name for name, command in COMMANDS.items() if any("--dry-run" in p.opts for p in command.params)
    }

    assert asking == {"sessions delete", "turns cancel", "turns drop", "users erase"}
    assert trying == {"sessions delete", "users erase", "retention run"}


def test_help_fits_eighty_columns() -> None:
    lines = all_help().stdout.splitlines()

    assert len(lines) > 300
    assert [line for line in lines if len(line.rstrip()) > 80] == []


def test_help_loads_nothing_heavy() -> None:
    loaded = set(all_help().stderr.split())

    assert "typer" in loaded
    assert loaded & set(HEAVY) == set()


def test_every_error_has_an_exit_code_of_the_table() -> None:
    def below(kind: type[InturnError]) -> Iterator[type[InturnError]]:
        for each in kind.__subclasses__():
            if each.__module__.startswith("inturn."):
                yield each
                yield from below(each)

    codes = {kind.__name__: exits.code_of(kind.__new__(kind)) for kind in below(InturnError)}
    assert set(codes.values()) == {exits.FAILED, exits.WRONG, exits.TIMED_OUT, exits.AWAY}
    assert codes["TurnTimeoutError"] == exits.TIMED_OUT
    assert codes["ConfigurationError"] == codes["InvalidInputError"] == exits.WRONG
    assert codes["MailboxUnavailableError"] == codes["StoreUnavailableError"] == exits.AWAY
    assert codes["TurnFailedError"] == codes["SessionNotFoundError"] == exits.FAILED


def test_the_page_of_the_command_is_up_to_date() -> None:
    assert page() == PAGE.read_text(), (
        "docs/cli.md is out of date; `python -m tests.unit.test_cli_help` writes it anew"
    )


def page() -> str:
    """docs/cli.md as it should be: what stands before the table of exit codes, then all that is generated."""
    before = PAGE.read_text().partition("| exit code |")[0]
    return before + "".join(f"{line}\n" for line in generated())


def generated() -> Iterator[str]:
    yield "| exit code | meaning |"
    yield "| --- | --- |"
    yield from (f"| {code} | {meaning} |" for code, meaning in exits.MEANINGS.items())
    for name, command in COMMANDS.items():
        yield ""
        yield f"## inturn {name}"
        yield ""
        context = command.make_context(f"inturn {name}", [], resilient_parsing=True)
        usage = " ".join(command.get_usage(context).split())
        yield from ("```text", usage.removeprefix("Usage: "), "```", "")
        yield command.help
        rows = [row for param in command.params for row in described(param)]
        yield from ("", "| argument or option | meaning |", "| --- | --- |", *rows)
        yield ""
        yield f"Example: `{example(command)}`"


def described(param: Any) -> Iterator[str]:
    names = ", ".join(f"`{name}`" for name in param.opts)
    value = param.metavar or ""
    if param.param_type_name == "argument":
        names, value = f"`{param.metavar}`", ""
    elif not param.is_flag and param.type_descriptor.is_choice:
        value = " or ".join(f"`{choice}`" for choice in param.type_descriptor.choices)
    elif value:
        value = f"`{value}`"
    default = param.default
    has_default = default not in (None, False, ()) and param.param_type_name == "option"
    shown = f" Default: `{default:g}`." if isinstance(default, float) else f" Default: `{default}`."
    text = param.help.replace("|", "\\|")
    yield f"| {f'{names} {value}'.strip()} | {text}{shown if has_default else ''} |"


if __name__ == "__main__":
    PAGE.write_text(page())
