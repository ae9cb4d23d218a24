"""What inturn brings along: which licences, and none that would bind its users; the GPL tools stay in tests.

Run as a program (`python -m tests.unit.test_supply_chain`) it writes docs/licences.md anew.
"""

from __future__ import annotations

import re
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.nodes import ROOT

PAGE = ROOT / "docs" / "licences.md"
HEAD = """\
# Licences

inturn is under the [MIT licence](../LICENSE). It holds nothing of others, but needs, with all its extras,
the packages below; the versions are in [uv.lock](../uv.lock). This page is written by a program
(`python -m tests.unit.test_supply_chain`) from what the packages say of themselves; a test fails if it is
old.

psycopg is under the LGPL. It is used as a library, unchanged, which binds neither inturn nor your agents, and
it is imported for `postgresql://` alone. No package here is under the GPL or the AGPL. One tool of the tests
is (`secantusdb`, a stand-in for MongoDB): tests start it as a program of its own, and it is in no wheel and
no image.

| package | licence |
| --- | --- |
"""
STRICT = re.compile(r"\bA?GPL|GNU (Affero )?General Public", re.I)
"""The licences that bind whoever passes a program on; LGPL, which does not, has a letter before the G."""


def licence_of(name: str) -> str:
    """What a package says of its licence."""
    metadata = distribution(name).metadata
    if expression := metadata.get_all("License-Expression"):
        return str(expression[0])
    classifiers = metadata.get_all("Classifier") or []
    named = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: ")]
    named = [each for each in named if each != "OSI Approved"]
    said = (metadata.get_all("License") or ["unknown"])[0].strip() or "unknown"
    return "; ".join(named) or said.splitlines()[0]


def needed() -> set[str]:
    """All installed packages that inturn needs with any of its extras, directly or not."""
    found: dict[str, frozenset[str]] = {}

    def add(name: str, extras: frozenset[str]) -> None:
        name = canonicalize_name(name)
        if name in found and extras <= found[name]:
            return
        try:
            there = distribution(name)
        except PackageNotFoundError:
            return  # for another system or Python
        found[name] = extras = extras | found.get(name, frozenset())
        for requirement in map(Requirement, there.requires or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                add(requirement.name, frozenset(requirement.extras))

    add("inturn", frozenset(distribution("inturn").metadata.get_all("Provides-Extra") or ()))
    return set(found) - {"inturn"}


def listed() -> dict[str, str]:
    """The rows of the page."""
    return dict(re.findall(r"^\| ([a-z0-9-]+) \| (.+) \|$", PAGE.read_text().partition("| --- |")[2], re.M))


def requirements_of(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata: Message = message_from_bytes(archive.read(name))
    return [Requirement(line) for line in metadata.get_all("Requires-Dist") or ()]


def test_the_page_of_licences_is_up_to_date() -> None:
    rows = listed()

    assert {name: licence_of(name) for name in needed()}.items() <= rows.items(), (
        "docs/licences.md is out of date; `python -m tests.unit.test_supply_chain` writes it anew"
    )
    locked = {package["name"] for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    assert rows.keys() <= locked


def test_no_package_that_is_needed_binds_its_users() -> None:
    strict = {name: licence_of(name) for name in needed() if STRICT.search(licence_of(name))}

    assert strict == {}
    assert [name for name in needed() if licence_of(name) == "unknown"] == []


def test_the_gpl_is_known_when_it_is_met() -> None:
    for text in ["GPL-3.0-or-later", "GNU General Public License v3 (GPLv3)", "AGPL-3.0-only"]:
        assert STRICT.search(text)
    for text in ["LGPL-3.0-only", "GNU Lesser General Public License v3 (LGPLv3)", "MIT"]:
        assert not STRICT.search(text)


def test_no_test_tool_is_in_the_wheel_or_needed_by_it(wheel: Path) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    tools = {canonicalize_name(Requirement(line).name) for line in groups["dev"]} - {"inturn"}
    assert "secantusdb" in tools

    assert {canonicalize_name(each.name) for each in requirements_of(wheel)} & tools == set()
    source = "".join(
        path.read_text() for tree in ("src", "worker", "producer") for path in (ROOT / tree).rglob("*.py")
    )
    assert "secantus" not in source
    assert "secantus" not in (ROOT / "deploy" / "Dockerfile").read_text()


def test_every_package_is_locked_with_its_hash() -> None:
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        if "registry" in package["source"]:
            files = [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
            assert files, package["name"]
            assert all(each["hash"].startswith("sha256:") for each in files), package["name"]


if __name__ == "__main__":
    PAGE.write_text(HEAD + "".join(f"| {name} | {licence_of(name)} |\n" for name in sorted(needed())))
