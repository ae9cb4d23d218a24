"""The names of all keys that inturn has in Redis.

Sessions are spread over a fixed number of buckets, and a bucket is a hash tag: everything of one session,
and the index that says which sessions wait, is in one slot of a Redis Cluster and can change in one step.

| key | type | holds |
| --- | --- | --- |
| `<prefix>:{b}:active` | zset | session IDs with waiting turns, scored by when somebody should have acted (ms) |
| `<prefix>:{b}:q:<session>` | list | turn IDs in order of arrival; the head is the one that runs |
| `<prefix>:{b}:t:<session>` | hash | turn ID -> payload |
| `<prefix>:{b}:m:<session>` | hash | the lease (`owner`, `until`, `fence`), `sleep`, `wakes`, `stop`, `att:<turn>`, and the last release (`last`, `reply`) |
| `<prefix>:{b}:d:<session>` | zset | IDs of turns that are done, scored by when (ms); half a millisecond more: it was dropped |
"""  # noqa: E501

from __future__ import annotations

from zlib import crc32

BUCKETS = 64
"""Fixed for ever: another number would look for waiting turns where they are not."""


class Keys:
    """The names of keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.indexes = [f"{prefix}:{{{bucket}}}:active" for bucket in range(BUCKETS)]
        """The index of waiting sessions, of each bucket."""

    def of_session(self, session_id: str) -> list[str]:
        """The keys every script of a session gets, in the order in which the scripts name them."""
        bucket = crc32(session_id.encode()) % BUCKETS
        stem = f"{self._prefix}:{{{bucket}}}"
        return [
            self.indexes[bucket],
            f"{stem}:q:{session_id}",
            f"{stem}:t:{session_id}",
            f"{stem}:m:{session_id}",
            f"{stem}:d:{session_id}",
        ]
