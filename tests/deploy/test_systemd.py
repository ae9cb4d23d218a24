"""deploy/systemd: verified by systemd itself, where it is, and read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inturn.settings import Settings
from tests.deploy.named import FLOWER, options, processes, settings, told_to_workers
from tests.nodes import ROOT

FOLDER = ROOT / "deploy" / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))


def lines(name: str) -> Iterator[tuple[str, str]]:
    """What a unit says, after what all of them say."""
    for path in (FOLDER / "inturn-.service.d" / "common.conf", FOLDER / name):
        for line in path.read_text().splitlines():
            if line and line[0] not in "#[":
                key, _, value = line.partition("=")
                yield key, value


def said(name: str) -> dict[str, str]:
    """The last word of a unit on each thing."""
    return dict(lines(name))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as on a machine, with programs that are there."""
    folder = tmp_path_factory.mktemp("units")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    for path in folder.glob("*.service"):
        path.write_text(path.read_text().replace("/opt/inturn/bin", str(Path(sys.executable).parent)))
    shutil.copy(folder / "inturn-worker@.service", folder / "inturn-worker@1.service")
    return folder


def analyze(*arguments: str, units: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd on this machine")
    env = {"SYSTEMD_UNIT_PATH": f"{units}:"}
    return subprocess.run([program, *arguments], env=env, capture_output=True, text=True)


def test_systemd_takes_them(installed: Path) -> None:
    paths = map(str, [*installed.glob("*.service"), installed / "inturn.target"])
    done = analyze("verify", "--man=no", *paths, units=installed)

    # It also says what it thinks of the machine's own units.
    assert [line for line in done.stderr.splitlines() if "inturn" in line] == []


@pytest.mark.parametrize("unit", [unit for unit in UNITS if "@" not in unit])
def test_systemd_finds_them_little_exposed(unit: str, installed: Path) -> None:
    done = analyze(
        "security", "--offline=yes", "--threshold=20", "--no-pager", str(installed / unit), units=installed
    )

    assert done.returncode == 0, done.stdout[-300:]


def test_there_is_a_unit_for_each_process() -> None:
    names = {re.sub(r"^inturn-(\w+)@?\.service$", r"\1", unit) for unit in UNITS}

    assert names == processes() | {"migrate"}
    wanted = re.search(r"^Wants=(.*)$", (FOLDER / "inturn.target").read_text(), re.M)
    assert wanted
    assert {re.sub("@1", "@", unit) for unit in wanted[1].split()} == set(UNITS) - {"inturn-migrate.service"}


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_names_settings_and_files_that_make_secrets_writes(unit: str) -> None:
    made = (ROOT / "deploy" / "make_secrets.py").read_text()
    for key, value in lines(unit):
        if key == "Environment":
            assert {word.partition("=")[0] for word in value.split()} <= settings() | FLOWER | {
                "PYTHONPATH",
                "PYTHONUNBUFFERED",
                "PYTHONDONTWRITEBYTECODE",
            }
        if key == "LoadCredential":
            name, _, path = value.partition(":")
            assert name in settings() | FLOWER
            file = Path(path).name
            assert (
                file in made
                or file.removeprefix("REDIS_URL_") in (ROOT / "deploy/redis/users.acl").read_text()
            )


@pytest.mark.parametrize("name", ["worker@", "delivery", "maintenance"])
def test_workers_take_the_queues_they_take_by_the_procfile(name: str) -> None:
    in_procfile, here = (
        told_to_workers(name.strip("@")),
        options(said(f"inturn-{name}.service")["ExecStart"]),
    )
    for option in ("queues", "pool", "task-events", "without-gossip", "without-mingle"):
        assert here[option] == in_procfile[option], option


def test_only_what_erases_and_deletes_has_the_rights_for_it() -> None:
    more = "REDIS_URL:/etc/inturn/secrets/REDIS_URL_maintenance"

    assert [unit for unit in UNITS if ("LoadCredential", more) in lines(unit)] == [
        "inturn-maintenance.service"
    ]
    migrate = said("inturn-migrate.service")["Before"].split()
    waiting = {re.sub("@1", "@", unit) for unit in migrate}
    assert waiting == {unit for unit in UNITS if said(unit).get("Requires") == "inturn-migrate.service"}


def test_a_worker_ends_warm_and_has_the_time_for_it() -> None:
    worker = said("inturn-worker@.service")

    assert (worker["KillMode"], worker["KillSignal"]) == ("mixed", "SIGTERM")
    assert float(worker["TimeoutStopSec"]) > Settings.model_fields["turn_seconds"].default


@pytest.mark.parametrize("unit", UNITS)
def test_what_a_unit_may_not(unit: str) -> None:
    says = said(unit)

    assert says["NoNewPrivileges"] == "yes"
    assert says["ProtectSystem"] == "strict"
    assert says["DynamicUser"] == "yes"
    assert says["Restart"] == ("no" if unit == "inturn-migrate.service" else "always")
