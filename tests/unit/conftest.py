"""The wheel, built and installed, for the tests that run what is shipped."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.nodes import ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel installed and our dependencies in reach, but not our sources."""
    directory = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(directory, with_pip=False)
    python = directory / "bin" / "python"
    subprocess.run(
        [
            "sh",
            ROOT / "scripts" / "uv",
            "pip",
            "install",
            "-q",
            "--offline",
            "--no-deps",
            "-p",
            python,
            wheel,
        ],
        check=True,
    )
    # The folder goes last on the path, and .pth files in it (ours is one) count for nothing there.
    site_packages = next((directory / "lib").glob("python*")) / "site-packages"
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python
