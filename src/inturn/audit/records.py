"""Records: the lines of the audit log, and the hash by which each holds the one before it.

A line is one JSON object in ASCII, whose last field is the hash of all that stands before it:

    {"action":"read","actor":"user:ann",...,"n":7,"prev":"<hash of record 6>","hash":"<64 hex digits>"}

No text from outside can end a line or begin another: JSON escapes every control character.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any, Literal

Action = Literal["open", "read", "change", "export", "erase"]

NOTHING = "0" * 64
"""What the first record of a chain holds in place of the hash of one before it."""

_END = re.compile(rb',"hash":"([0-9a-f]{64})"\}')
_END_LENGTH = len(',"hash":""}') + 64


def encode(record: dict[str, Any], key: bytes | None) -> tuple[bytes, str]:
    """The line of a record, with its end, and its hash."""
    # What is no JSON is a caller's mistake that the store will refuse; the record must not fail by it.
    body = json.dumps(record, sort_keys=True, separators=(",", ":"), default=_named).encode()
    digest = digest_of(body, key)
    return body[:-1] + f',"hash":"{digest}"}}\n'.encode(), digest


def split(line: bytes) -> tuple[bytes, str] | None:
    """What of a line was hashed, and the hash that it says; None: it is no line of ours."""
    end = _END.fullmatch(line[-_END_LENGTH:])
    return None if end is None else (line[:-_END_LENGTH] + b"}", end[1].decode())


def digest_of(body: bytes, key: bytes | None) -> str:
    """The hash of a record, or with a key its HMAC, which nobody can make without the key."""
    if key is None:
        return hashlib.sha256(body).hexdigest()
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def _named(value: object) -> str:
    return type(value).__name__
