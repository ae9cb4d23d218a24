"""API keys: which backends may use the web API for any user."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from pydantic import SecretStr

from inturn.errors import ConfigurationError

SHORTEST_KEY = 16
"""Characters a key must have: it is guessed against, and hashed without salt because it is long."""


class ApiKeys:
    """The keys of `INTURN_API_KEYS` by their names; in memory are their digests only."""

    def __init__(self, setting: SecretStr | None) -> None:
        self._digests: dict[str, bytes] = {}
        text = "" if setting is None else setting.get_secret_value().strip()
        if text and ":" not in text:
            text = _read(text)
        for line in re.split(r"[,\n]", text):
            if (line := line.strip()) and not line.startswith("#"):
                self._add(line)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def name_of(self, key: str) -> str | None:
        """The name of a key, or None; takes as long for one that is nearly right as for any other."""
        digest = _digest(key)
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _add(self, line: str) -> None:
        name, _, key = (part.strip() for part in line.partition(":"))
        # No message shows any of the line: even its name may be a key, where the name was forgotten.
        number = len(self._digests) + 1
        if not re.fullmatch(r"[\w.-]{1,64}", name, re.A):
            raise ConfigurationError(
                f"INTURN_API_KEYS: entry {number} is not name:key; a name has letters, digits and _.-"
            )
        if len(key) < SHORTEST_KEY:
            raise ConfigurationError(
                f"INTURN_API_KEYS: the key of entry {number} has less than {SHORTEST_KEY} characters; "
                "`openssl rand -hex 32` makes a good one"
            )
        if name in self._digests:
            raise ConfigurationError(
                f"INTURN_API_KEYS: entry {number} has the name of one before it; give each its own"
            )
        self._digests[name] = _digest(key)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeError, ValueError) as error:
        raise ConfigurationError(
            "INTURN_API_KEYS is neither a list of name:key nor the path of a file that can be read "
            f"({type(error).__name__})"
        ) from None
