"""What may be named in the files of deploy/: the settings, and the commands that start processes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from honcho.environ import parse_procfile
from pydantic import AliasChoices

from inturn.contract import MAINTENANCE_QUEUE
from inturn.settings import Settings
from tests.nodes import ROOT

FLOWER = {"FLOWER_BASIC_AUTH", "FLOWER_DB", "FLOWER_READ_ONLY", "FLOWER_PORT"}
"""What Flower takes from the environment."""


def settings() -> set[str]:
    """The variables of all settings."""
    found = set()
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        found |= (
            set(map(str, alias.choices)) if isinstance(alias, AliasChoices) else {f"INTURN_{name.upper()}"}
        )
    return found


def processes() -> set[str]:
    """The processes of the Procfile, and the one that has a queue of its own where Redis has users."""
    return {*_procfile(), MAINTENANCE_QUEUE}


def told_to_workers(name: str) -> dict[str, str]:
    """What the worker is told by the Procfile, whose `worker` takes the queue of `maintenance` as well."""
    told = options(_procfile()["worker" if name == MAINTENANCE_QUEUE else name])
    queues = told["queues"].split(",")
    if name == "worker":
        queues.remove(MAINTENANCE_QUEUE)
    elif name == MAINTENANCE_QUEUE:
        assert name in queues
        queues = [name]
        told["hostname"] = f"{name}@%h"
    return {**told, "queues": ",".join(queues)}


def _procfile() -> dict[str, str]:
    lines: dict[str, str] = parse_procfile((ROOT / "Procfile").read_text()).processes
    return lines


def options(command: str | Iterable[str]) -> dict[str, str]:
    """What a command says of queues, pool and the like, in one form for `-Q a` and `--queues=a`."""
    text = command if isinstance(command, str) else " ".join(command)
    short = {"-Q": "--queues", "-n": "--hostname", "-E": "--task-events", "-A": "--app"}
    for name, long in short.items():
        text = re.sub(rf"(?<!\S){name}(?!\S)", long, text)
    return dict(re.findall(r"--([a-z-]+)(?:[ =](?!-)(\S+))?", text))
