"""The agent of `tests.agents`, whose process dies once where a turn is committed and nobody knows it yet.

A message with `fatal` in it does that: the session, its messages and the turn are in the store, and
nothing else of it is anywhere.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from inturn.agent import Agent, Hooks
from inturn.contract import Response
from tests.agents import Obedient

JOURNAL = os.environ.get("TEST_JOURNAL", os.devnull)


def died(journal: str | Path) -> Path:
    """The file that tells that it has died."""
    return Path(f"{journal}.died")


def _die(response: Response) -> None:
    if "fatal" in response.message and not died(JOURNAL).exists():
        died(JOURNAL).touch()
        os.kill(os.getpid(), signal.SIGKILL)


agent = Agent(
    "mortal",
    provider=Obedient(JOURNAL),
    fallback_message="Sorry, that did not work.",
    hooks=Hooks(after_respond=_die),
)
