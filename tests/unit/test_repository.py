"""The repository's own machinery: the set-up on a bare machine, and the lock file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.nodes import ROOT


class TestSetUp:
    """scripts/uv, which every `make` command begins with, on machines that lack one thing or another."""

    @pytest.fixture
    def machine(self, tmp_path: Path) -> Path:
        """A checkout, and a `bin` with the few programs that every Unix has; no Python, no uv."""
        (tmp_path / "bin").mkdir()
        for name in ("sh", "dirname", "rm", "cat", "cksum"):
            (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
        (tmp_path / "checkout" / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "uv", tmp_path / "checkout" / "scripts")
        return tmp_path

    @pytest.fixture
    def install(self, machine: Path) -> Callable[[str, str], None]:
        def install(name: str, script: str) -> None:
            program = machine / "bin" / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)

        return install

    def uv(self, machine: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "checkout/scripts/uv", *arguments],
            cwd=machine,
            env={"PATH": str(machine / "bin"), **env},
            capture_output=True,
            text=True,
        )

    REAL_PYTHON = f'exec "{sys.executable}" "$@"'
    PYTHON_WITHOUT_VENV = f'[ "$1" = -m ] && exit 1; exec "{sys.executable}" "$@"'
    BROKEN_SHIM = "echo 'command not found' >&2; exit 127"
    UV = (
        'case "$*" in *"cache dir") exit 0;; esac; echo "$UV_PYTHON|$UV_CACHE_DIR|$UV_PROJECT_ENVIRONMENT|$*"'
    )
    OLD_UV = "exit 2"

    def test_a_machine_without_python_is_told_so(self, machine: Path) -> None:
        done = self.uv(machine, "sync")

        assert done.returncode != 0
        assert "Python 3.11 or newer is missing" in done.stderr

    def test_a_shim_without_a_python_behind_it_is_passed_over(
        self, machine: Path, install: Callable[[str, str], None]
    ) -> None:
        install("python3", self.BROKEN_SHIM)
        install("python3.12", self.REAL_PYTHON)
        install("uv", self.UV)

        done = self.uv(machine, "sync", "--locked")

        python, cache, environment, arguments = done.stdout.strip().split("|")
        assert python == sys.executable
        assert cache == f"{machine}/checkout/.cache/uv"
        assert environment == f"{machine}/checkout/.venv"
        assert arguments == f"--project {machine}/checkout sync --locked"

    def test_a_python_that_the_user_names_must_be_one(
        self, machine: Path, install: Callable[[str, str], None]
    ) -> None:
        install("python3", self.REAL_PYTHON)
        install("python3.10", "exit 1")

        done = self.uv(machine, "sync", PYTHON="python3.10")

        assert done.returncode != 0
        assert "PYTHON=python3.10 is not a Python >= 3.11" in done.stderr

    @pytest.mark.parametrize("with_old_uv", [False, True])
    def test_a_python_that_cannot_make_environments_is_told_what_to_install(
        self, machine: Path, install: Callable[[str, str], None], with_old_uv: bool
    ) -> None:
        install("python3", self.PYTHON_WITHOUT_VENV)
        if with_old_uv:
            install("uv", self.OLD_UV)

        done = self.uv(machine, "sync")

        assert done.returncode != 0
        assert "python3-venv" in done.stderr

    def test_make_alone_explains_itself(self) -> None:
        done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)

        targets = re.findall(r"^make (\w+) ", done.stdout, re.M)
        assert {"demo", "test", "dev", "check", "clean", "help"} <= set(targets)


class TestLockFile:
    def test_all_packages_come_from_one_public_index_and_its_files(self) -> None:
        text = (ROOT / "uv.lock").read_text()
        urls = {urlsplit(url) for url in re.findall(r'"(\w+://[^"]+)"', text)}

        assert urls
        assert {url.scheme for url in urls} == {"https"}
        hosts = {url.netloc for url in urls}
        assert len(hosts) == 2
        for host in hosts:
            assert re.fullmatch(r"([a-z]+\.)+(org|com|io)", host), f"{host} is not a public host name"
            with pytest.raises(ValueError, match="IPv4 or IPv6"):
                ip_address(host)

    def test_nothing_but_this_project_comes_from_a_folder(self) -> None:
        lock = tomllib.loads((ROOT / "uv.lock").read_text())

        local = {package["name"] for package in lock["package"] if "registry" not in package["source"]}
        assert local == {"inturn"}


def test_ci_may_run_its_script() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
