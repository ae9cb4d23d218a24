"""aimock: a double of OpenAI's APIs, made by others, that says word for word what it is told.

It is an npm package. One version is installed into `.cache`, checked against its hash.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from inturn.embedded.tether import tethered
from tests.nodes import ROOT
from tests.waiting import wait_until

VERSION = "1.43.0"
INTEGRITY = "sha512-V8D8cjSMtAR4rHaD2ulp3DR/ZguXQjDNOqwKDNvjb/OJL/KR1I0SDf5xpRCd+TYKjhmf9fM8Xpg3QBKPmV9Kmw=="
NODE = (20, 15)
"""The oldest Node.js that it runs on."""

_PACKAGE = "@copilotkit/aimock"
_CACHE = ROOT / ".cache"
_MANIFEST = {"private": True, "dependencies": {_PACKAGE: VERSION}}
_LOCK = {
    "lockfileVersion": 3,
    "requires": True,
    "packages": {
        "": {"dependencies": {_PACKAGE: VERSION}},
        f"node_modules/{_PACKAGE}": {"version": VERSION, "integrity": INTEGRITY},
    },
}


class Aimock:
    """A running aimock, and what it is told to say."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.base_url = f"{url}/v1"

    def says(self, *fixtures: dict[str, Any]) -> None:
        """Forget everything, and answer by these from now on: the first one that matches a request."""
        self._control("reset", {})
        self._control("fixtures", {"fixtures": list(fixtures)})

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests since then, as it understood them: in the form of Chat Completions."""
        return [entry["body"] for entry in self._control("journal")]

    def _control(self, what: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self._url}/__aimock/{what}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def aimock() -> Iterator[Aimock]:
    """Give a running aimock; skips the test where it cannot be had."""
    script = _installed()
    with tempfile.TemporaryDirectory(prefix="inturn-aimock-") as directory:
        fixtures, log = Path(directory) / "none.json", Path(directory) / "log"
        # It does not start without any.
        nobodys = {"match": {"model": "nobody"}, "response": {"content": "-"}}
        fixtures.write_text(json.dumps({"fixtures": [nobodys]}))
        command = ["node", str(script), "--strict", "-h", "127.0.0.1", "-p", "0", "-f", str(fixtures)]
        with (
            log.open("w") as output,
            subprocess.Popen(
                tethered(command), stdout=output, stderr=subprocess.STDOUT, cwd=directory
            ) as process,
        ):
            try:
                yield Aimock(wait_until(lambda: _url(process, log.read_text()), what="aimock to listen"))
            finally:
                process.kill()


def _url(process: subprocess.Popen[bytes], said: str) -> str:
    assert process.poll() is None, f"aimock did not start: {said}"
    found = re.search(r"listening on (\S+)\n", said)
    return found[1] if found else ""


def _installed() -> Path:
    """The script to run; installs it if it is not there yet, once for all processes of a test run."""
    if (has := _node()) < NODE:
        pytest.skip(f"aimock needs Node.js {'.'.join(map(str, NODE))} or newer; here is {_worded(has)}")
    home = _CACHE / f"aimock-{VERSION}"
    script = home / "node_modules" / _PACKAGE / "dist" / "cli.js"
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "aimock.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not script.exists():
            _install(home)
    return script


def _install(home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        _unavailable("npm is not on the PATH")
    with tempfile.TemporaryDirectory(dir=_CACHE, prefix="aimock-") as making:
        package = Path(making) / "package"
        package.mkdir()
        (package / "package.json").write_text(json.dumps(_MANIFEST))
        (package / "package-lock.json").write_text(json.dumps(_LOCK))
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(_CACHE / "npm")]
        try:
            done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            _unavailable("npm was not done in two minutes")
        if done.returncode != 0:
            _unavailable(f"npm says: {done.stderr.strip()[-500:]}")
        package.rename(home)  # all or nothing


def _unavailable(why: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"aimock could not be installed: {why}")
    pytest.skip(f"aimock could not be installed: {why}")


def _node() -> tuple[int, ...]:
    """The version of Node.js; empty if there is none."""
    try:
        said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True, timeout=20)
        return tuple(int(part) for part in said.stdout.strip().lstrip("v").split(".")[:2])
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _worded(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "none"
