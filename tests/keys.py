"""What tests leave behind in Redis."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from redis import Redis


def keys_of(client: Redis, prefix: str) -> list[str]:
    """The names of all keys that have `prefix` in them: inturn's names may begin with a hash tag's brace."""
    return sorted(key.decode() for key in client.scan_iter(match=f"*{prefix}*", count=1000))


def keys_without_ttl(client: Redis, prefix: str, *, declared: Iterable[str] = ()) -> list[str]:
    """Those of them that would stay for ever, but for the ones that a pattern in `declared` allows."""
    patterns = list(declared)
    return [
        key
        for key in keys_of(client, prefix)
        if client.ttl(key) == -1 and not any(fnmatchcase(key, pattern) for pattern in patterns)
    ]
