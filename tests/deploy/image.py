"""The Dockerfile, read: there is no Docker here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.nodes import ROOT


class Step(NamedTuple):
    stage: int
    word: str
    text: str


def steps() -> list[Step]:
    """The instructions of the Dockerfile, each with the number of its stage; 0 is before the first one."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines()
    found, stage = [], 0
    for line in filter(None, map(str.strip, lines)):
        word, _, rest = line.partition(" ")
        stage += word == "FROM"
        found.append(Step(stage, word, rest))
    return found


STEPS = steps()
LAST = max(step.stage for step in STEPS)


def last(word: str) -> list[str]:
    """What the last stage says with an instruction."""
    return [step.text for step in STEPS if (step.stage, step.word) == (LAST, word)]


def copied() -> list[str]:
    """All that comes from the repository."""
    texts = [step.text for step in STEPS if step.word == "COPY" and not step.text.startswith("--from=")]
    return [source for text in texts for source in text.split()[:-1]]


def listing(directory: Path) -> str:
    """All that is in a directory."""
    return "\n".join(sorted(str(path) for path in directory.rglob("*")))
