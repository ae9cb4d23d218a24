"""load_agent: a dotted path that is right, and each way in which it can be wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from inturn.agent import load_agent
from inturn.errors import ConfigurationError

MODULE = """
from inturn import Agent, OfflineProvider
host = Agent("Host", provider=OfflineProvider())
word = "host"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"agents_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_broken.py").write_text("import nothing_of_that_name")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    return name


def test_an_agent_is_loaded_from_the_current_directory(module: str) -> None:
    assert load_agent(f"{module}:host").name == "Host"


@pytest.mark.parametrize("path", ["", "agents", "agents:", ":host", ".agents:host"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"write package.module:name"):
        load_agent(path)


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="there is no module 'no_such_module'"):
        load_agent("no_such_module.agents:host")


def test_a_module_in_a_package_that_is_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no module 'examples.no_such_module'"):
        load_agent("examples.no_such_module:host")


def test_a_module_that_cannot_be_imported_says_why_itself(module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        load_agent(f"{module}_broken:host")


def test_a_misspelt_name_is_corrected(module: str) -> None:
    with pytest.raises(ConfigurationError, match=f"has no 'hots'; did you mean {module}:host\\?"):
        load_agent(f"{module}:hots")


def test_what_is_no_agent_is_refused(module: str) -> None:
    with pytest.raises(ConfigurationError, match="is str, not Agent"):
        load_agent(f"{module}:word")


def test_a_module_without_an_agent_says_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"define agent = Agent\(...\) in it"):
        load_agent("json:agent")
