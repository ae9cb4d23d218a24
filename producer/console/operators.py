"""Operators: who may use the console. `python -m producer.console.operators` hashes a password."""

from __future__ import annotations

import getpass
import hashlib
import re
import secrets
import sys
import threading
from pathlib import Path

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pydantic import SecretStr

from inturn.errors import ConfigurationError

SHORTEST_PASSWORD = 12
"""Characters a password must have."""
_HASH = "$argon2id$"
_WHOLE_HASH = re.compile(r"\$argon2id\$v=19\$m=\d{2,7},t=\d{1,3},p=\d{1,2}\$[\w+/]{11,}\$[\w+/]{21,}", re.A)
_MEMORY_KIB = 19_456
"""What OWASP asks of Argon2id with two iterations and one lane."""
_AT_ONCE = 2
"""Passwords that are compared at the same time: each takes that memory, and some time of a processor."""


class Operators:
    """The operators of `INTURN_CONSOLE_USERS` by their names; in memory are hashes only.

    Raises `ConfigurationError` for a setting that cannot be right, and shows nothing of it.
    """

    def __init__(self, setting: SecretStr | None) -> None:
        self._hashes: dict[str, str] = {}
        self._marks: dict[str, bytes] = {}
        text = "" if setting is None else setting.get_secret_value().strip()
        if text and ":" not in text:
            text = _read(text)
        # A hash has commas in it, but no colon.
        for line in re.split(r"\n|,(?=\s*[\w.-]+:)", text):
            if (line := line.strip()) and not line.startswith("#"):
                self._add(line)
        if setting is not None and not self._hashes:
            raise ConfigurationError("INTURN_CONSOLE_USERS names nobody; write name:password")
        # Compared where there is no such operator, so that the time tells nothing of who there is.
        self._nobody = hash_password(secrets.token_hex(16)) if self._hashes else ""
        self._places = threading.BoundedSemaphore(_AT_ONCE)

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def __contains__(self, name: str) -> bool:
        return name in self._hashes

    def mark(self, name: str) -> bytes:
        """What changes with the operator's password; to be kept nowhere as it is."""
        return self._marks[name]

    def check(self, name: str, password: str) -> bool:
        """Whether this is the operator's password; takes as long for a name that nobody has."""
        known = self._hashes.get(name)
        with self._places:
            try:
                Argon2id.verify_phc_encoded(password.encode(errors="replace"), known or self._nobody)
            except InvalidKey:
                return False
        return known is not None

    def _add(self, line: str) -> None:
        name, _, password = (part.strip() for part in line.partition(":"))
        # No message shows any of the line: even its name may be a password, where the name was forgotten.
        number = len(self._hashes) + 1
        if not re.fullmatch(r"[\w.-]{1,64}", name, re.A):
            raise ConfigurationError(
                f"INTURN_CONSOLE_USERS: entry {number} is not name:password; a name has letters, digits and "
                "_.-, a password neither commas nor colons"
            )
        if name in self._hashes:
            raise ConfigurationError(
                f"INTURN_CONSOLE_USERS: entry {number} has the name of one before it; give each its own"
            )
        self._hashes[name] = _checked_hash(password, number)
        self._marks[name] = hashlib.sha256(password.encode(errors="replace")).digest()


def hash_password(password: str) -> str:
    """The hash that may stand in the place of a password, `$argon2id$...`."""
    kdf = Argon2id(salt=secrets.token_bytes(16), length=32, iterations=2, lanes=1, memory_cost=_MEMORY_KIB)
    return kdf.derive_phc_encoded(password.encode(errors="replace"))


def _checked_hash(password: str, number: int) -> str:
    if not password.startswith(_HASH):
        if len(password) < SHORTEST_PASSWORD or re.search(r"[,:]", password):
            raise ConfigurationError(
                f"INTURN_CONSOLE_USERS: the password of entry {number} must have {SHORTEST_PASSWORD} "
                "characters or more, and neither commas nor colons; `openssl rand -hex 16` makes a good one"
            )
        return hash_password(password)
    if not _WHOLE_HASH.fullmatch(password):
        raise ConfigurationError(
            f"INTURN_CONSOLE_USERS: the hash of entry {number} cannot be read; "
            "`python -m producer.console.operators` makes one"
        )
    return password


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeError, ValueError) as error:
        raise ConfigurationError(
            "INTURN_CONSOLE_USERS is neither a list of name:password nor the path of a file that can be read "
            f"({type(error).__name__})"
        ) from None


if __name__ == "__main__":
    typed = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if len(typed) < SHORTEST_PASSWORD:
        sys.exit(f"a password has {SHORTEST_PASSWORD} characters or more")
    sys.stdout.write(f"{hash_password(typed)}\n")
