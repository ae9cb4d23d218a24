"""Words: the messages that are commands to the sender of text messages, and not meant for the agent."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import Literal

Command = Literal["stop", "start", "yes", "help"]

STOP_WORDS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "OPTOUT", "REVOKE"})
"""After any of them Twilio itself sends the number nothing more, unless it is told to go by others."""

_COMMANDS: dict[str, Command] = {
    "START": "start",
    "UNSTOP": "start",
    "YES": "yes",
    "HELP": "help",
    "INFO": "help",
}


def find_command(body: str, stop_words: Collection[str] = STOP_WORDS) -> Command | None:
    """The command that a message is, if a word is all it says: "Stop!" and "opt-out" are, "stop that" is not.

    Case, spaces and punctuation are nothing, so that whoever wants no more messages need not be precise.
    `yes` wants messages again if they were stopped, and else is what anybody may say.
    """
    said = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", body))).upper()
    return "stop" if said in stop_words else _COMMANDS.get(said)
