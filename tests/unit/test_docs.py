"""The words around the code: examples run, commands and links exist, tables are those of the settings.

Run as a program (`python -m tests.unit.test_docs`) it writes docs/settings.md anew.
"""

from __future__ import annotations

import re
import secrets
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from typer.main import get_command

from inturn.cli import app
from inturn.embedded.valkey import EmbeddedValkey
from inturn.settings import Settings
from tests.nodes import ROOT, worker_container
from tests.pages import examples, printed, run, write

COMMANDS = {each.name for each in app.registered_commands} | {each.name for each in app.registered_groups}
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text()
SETTINGS_PAGE = ROOT / "docs" / "settings.md"
DEFAULT_REDIS = str(Settings.model_fields["redis_url"].default.get_secret_value())


def commands(page: str, program: str) -> set[str]:
    """What follows `program` wherever a shell block or a span of code in a page calls it."""
    text = re.sub(r"^```python\n.*?^```$", "", page, flags=re.M | re.S)
    shell = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    return {name for code in [*shell, *spans] for name in re.findall(rf"\b{program} ([a-z]+)\b", code)}


class TestReadme:
    @pytest.fixture
    def examples(self, tmp_path: Path) -> dict[str, str]:
        """The marked Python blocks by file name, written to `tmp_path`."""
        found = examples(README)
        write(found, tmp_path)
        return found

    def test_it_opens_with_the_two_commands(self) -> None:
        first = re.match(r"# inturn\n\n```sh\n(.*?)```", README, re.S)

        assert first
        assert re.findall(r"^\S+ \S+", first[1], re.M) == ["make demo", "make test"]

    def test_every_python_block_is_an_example_that_runs(self, examples: dict[str, str]) -> None:
        assert list(examples) == ["front_desk.py", "talk.py", "enqueue.py", "bare.py"]
        assert README.count("```python") == len(examples)

    def test_the_agent_talks_in_one_process(self, examples: dict[str, str], tmp_path: Path) -> None:
        assert run(tmp_path, sys.executable, "talk.py") == printed(examples["talk.py"])

    @pytest.mark.process
    def test_the_agent_talks_through_the_queue(
        self, examples: dict[str, str], tmp_path: Path, valkey: EmbeddedValkey
    ) -> None:
        env = {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": f"sqlite:///{tmp_path / 'inturn.db'}",
            "INTURN_AGENT": "front_desk:agent",
            "INTURN_KEY_PREFIX": f"inturn-test-{secrets.token_hex(4)}",
        }
        assert examples["bare.py"].count(DEFAULT_REDIS) == 2
        (tmp_path / "bare.py").write_text(examples["bare.py"].replace(DEFAULT_REDIS, valkey.url))
        worker = worker_container(tmp_path, env)
        try:
            worker.start()
            for name in ("enqueue.py", "bare.py"):
                assert run(tmp_path, sys.executable, name, env=env) == printed(examples[name])
        finally:
            worker.remove()


MARK = re.compile(r"<!-- (example|snippet|file|tested|not run)(?:: (.+?))? -->")
"""What stands before a block of code: how it is tested, or why it is not."""


DATA = ("console", "dockerfile", "ini", "json", "text", "yaml")
"""Languages of what is looked at, and not run."""


def blocks(page: str) -> Iterator[tuple[str, str, re.Match[str] | None]]:
    """The blocks of code: language, code, and the mark before it."""
    for block in re.finditer(r"^( *)```(\w+)\n(.*?)^ *```$", page, re.M | re.S):
        before = page[: block.start()].rstrip("\n").rpartition("\n")[2]
        yield block[2], textwrap.dedent(block[3]), MARK.fullmatch(before.strip())


def calls(code: str) -> list[list[str]]:
    """The words of each call of `inturn` in a shell block, or after the prompts of a session."""
    lines = re.findall(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*inturn (.*)$", code.replace("\\\n", " "), re.M)
    return [shlex.split(re.split(r" [>|]", line)[0], comments=True) for line in lines]


def other_examples() -> list[tuple[Path, str]]:
    """The examples of all pages but those that have tests of their own."""
    pages = [page for page in PAGES if page.name not in ("README.md", "tutorial.md", "quickstart.md")]
    return [(page, name) for page in pages for name in examples(page.read_text())]


@pytest.mark.parametrize(("page", "name"), other_examples(), ids=lambda value: getattr(value, "name", value))
def test_an_example_prints_what_its_page_says(page: Path, name: str, tmp_path: Path) -> None:
    found = examples(page.read_text())
    write(found, tmp_path)

    assert run(tmp_path, sys.executable, name) == printed(found[name])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPages:
    def test_commands_and_make_targets_exist(self, page: Path) -> None:
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))

        assert commands(page.read_text(), "inturn") <= COMMANDS
        assert commands(page.read_text(), "make") <= targets

    def test_every_block_of_code_is_tested_or_says_why_it_is_not(self, page: Path) -> None:
        for language, code, mark in blocks(page.read_text()):
            if mark is None:
                # Commands of ours are looked for above, their words below; the rest of the line is a shell's.
                ours = re.compile(r"(export )?[A-Z_]+=.*|(\$ )?(inturn|make|pytest|python -m) .*|\. \S+|#.*|")
                lines = code.replace("\\\n", " ").splitlines()
                plain = language == "sh" and all(ours.fullmatch(line) for line in lines)
                assert plain or language in DATA, code
            elif mark[1] in ("file", "tested"):
                assert (ROOT / mark[2]).exists(), mark[0]
            elif mark[1] == "not run":
                assert mark[2], code

    def test_calls_of_inturn_are_understood(self, page: Path) -> None:
        for language, code, _ in blocks(page.read_text()):
            for words in calls(code) if language in ("sh", "console") else []:
                understand(words)

    def test_a_page_is_of_no_machine(self, page: Path) -> None:
        text = page.read_text()

        assert not re.search(r"/(work|root|home/\w+)/|\b(pypi\.org|pythonhosted|npmjs|proxy\.golang)", text)

    def test_relative_links_lead_somewhere(self, page: Path) -> None:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert target.resolve().is_relative_to(ROOT), link
            if anchor:
                assert anchor in anchors(target), link

    def test_settings_that_are_named_exist(self, page: Path) -> None:
        named = set(re.findall(r"\bINTURN_[A-Z_]+\b", page.read_text()))

        assert named <= {name for field in Settings.model_fields.items() for name in variables(*field)}


def understand(words: list[str]) -> None:
    """Parse the arguments of `inturn` as it would, and run nothing; fails if it would refuse them."""
    command: Any = get_command(app)
    context = command.make_context("inturn", list(words))
    while hasattr(command, "resolve_command") and (rest := [*context._protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def test_the_page_of_settings_is_up_to_date() -> None:
    wanted = settings_page()

    assert wanted == SETTINGS_PAGE.read_text(), (
        f"docs/settings.md is out of date; `python -m tests.unit.test_docs` writes it anew:\n\n{wanted}"
    )


def test_the_map_of_the_house_names_every_room() -> None:
    """Folders of the repository, and what is in the library, are all links of ARCHITECTURE.md."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = [path for path in (ROOT / "src" / "inturn").iterdir() if path.suffix in ("", ".py")]
    rooms += [
        ROOT / name for name in ("worker", "producer", "tests", "deploy", "docs", "benchmarks", "examples")
    ]
    named = {(ROOT / link.partition("#")[0]).resolve() for link in re.findall(r"\]\(([^)\s]+)\)", page)}

    assert [path for path in rooms if path not in named and not path.name.startswith("__")] == []


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_times_in_the_life_of_a_turn_are_the_defaults() -> None:
    rows = re.findall(
        r"^\|.*\| ([\d.]+) \w+ \| `INTURN_(\w+)` \|$", (ROOT / "docs/turn-life.md").read_text(), re.M
    )

    assert len(rows) >= 8
    assert {name: float(value) for value, name in rows} == {
        name: float(Settings.model_fields[name.lower()].default) for _, name in rows
    }


def anchors(page: Path) -> set[str]:
    """The anchors that headings of a page get on GitHub."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def settings_page() -> str:
    """docs/settings.md as it should be: what stands before the table, then a row for each setting."""
    before = SETTINGS_PAGE.read_text().partition("| variable |")[0]
    return before + "".join(f"{row}\n" for row in settings_rows())


def settings_rows() -> Iterator[str]:
    yield "| variable | default | meaning |"
    yield "| --- | --- | --- |"
    for name, field in Settings.model_fields.items():
        names = " or ".join(f"`{variable}`" for variable in variables(name, field))
        yield f"| {names} | {shown(field.default)} | {field.description} |"


def variables(name: str, field: FieldInfo) -> list[str]:
    """The variables a setting is read from; the first one that is set wins."""
    if isinstance(field.validation_alias, AliasChoices):
        return [str(choice) for choice in field.validation_alias.choices]
    return [f"INTURN_{name.upper()}"]


def shown(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    SETTINGS_PAGE.write_text(settings_page())
