"""The names of all keys that inturn has in Redis.

Sessions are spread over a fixed number of buckets, and a bucket is a hash tag: everything of one session,
and the index that says which sessions wait, is in one slot of a Redis Cluster and can change in one step.

| key | type | holds |
| --- | --- | --- |
| `<prefix>:{b}:active` | zset | session IDs with waiting turns, scored by when somebody should have acted (ms) |
| `<prefix>:{b}:depth` | string | how many turns wait or run in the bucket |
| `<prefix>:{b}:shut` | string | how many wait or run in all, while these are too many: no turn is appended; expires |
| `<prefix>:{b}:dead` | zset | the dead letters of the bucket, `<session> <turn>` with the session's ID percent-encoded, scored by when they failed (ms); expires |
| `<prefix>:{b}:dead:facts` | hash | of each of them why it failed, as JSON; nothing that was said |
| `<prefix>:{b}:dead:payloads` | hash | of each of them the payload, as it was offered |
| `<prefix>:{b}:q:<session>` | list | turn IDs in order of arrival; the head is the one that runs |
| `<prefix>:{b}:t:<session>` | hash | turn ID -> payload |
| `<prefix>:{b}:m:<session>` | hash | the lease (`owner`, `until`, `fence`), `sleep`, `wakes`, `stop`, `att:<turn>`, `join:<turn>` and `set:<turn>` (see lua/common.lua), and the last release (`last`, `reply`) |
| `<prefix>:{b}:d:<session>` | zset | IDs of turns that are done, scored by when (ms); half a millisecond more: it was dropped |
| `<prefix>:{b}:s:<session>:<turn>` | stream | the text of a turn's reply as it comes; each entry's ID is `<fence>-<number>`. The session's ID is percent-encoded |
| `<prefix>:{b}:u:<session>` | string | whose turns a new session takes, as JSON (`null`: nobody's), until the store knows it |
| `<prefix>:canary:<id>` | list | which workers have answered a canary |
| `<prefix>:rotation` | string | how far the rotation of keys has come, as JSON |
| `<prefix>:{retention}` | string | how far a run of retention has come, as JSON; expires |
| `<prefix>:{retention}:lock` | string | that one is at work; expires |
| `<prefix>:{retention}:reports` | list | what the last runs did, as JSON, the newest first; expires |
| `<prefix>:erasure:<hash>:asked`, `...:alone` | string | the task that is to erase a user, and the one that does; expires |
| `<prefix>:ticket:<hash>` | string | the turn whose events a ticket of the web API opens |
| `<prefix>:console:<hash>` | string | which operator a browser is signed in for at the console; expires |
| `<prefix>:{budget}:requests:<seconds>`, `...:tokens:...` | hash | how much of the model was used, by slices of a window of so many seconds; see lua/spend.lua. With `:<tenant>` behind it: by one tenant, percent-encoded |
| `<prefix>:{budget}:closed` | string | the model has asked for a pause; expires with it |
| `<prefix>:{budget}:call:<random>` | string | a call of the script that was counted |
| `<prefix>:limit:...` | list | when a caller of the web API asked, for its rate limit |

Replies on their way out have mailboxes of the same kind under `<prefix>-out`, without streams, and
`<prefix>-out:outcomes` is a stream of how deliveries ended that did not simply arrive.
"""  # noqa: E501

from __future__ import annotations

from urllib.parse import quote
from zlib import crc32

BUCKETS = 64
"""Fixed for ever: another number would look for waiting turns where they are not."""


class Keys:
    """The names of keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.indexes = [f"{prefix}:{{{bucket}}}:active" for bucket in range(BUCKETS)]
        """The index of waiting sessions, of each bucket."""
        self.depths = [f"{prefix}:{{{bucket}}}:depth" for bucket in range(BUCKETS)]
        """How many turns wait, of each bucket."""
        self.shuts = [f"{prefix}:{{{bucket}}}:shut" for bucket in range(BUCKETS)]
        """Whether turns are refused for the number of those that wait in all, of each bucket."""
        self.dead = [_of_dead(f"{prefix}:{{{bucket}}}") for bucket in range(BUCKETS)]
        """The index, facts and payloads of the dead letters, of each bucket."""

    def of_session(self, session_id: str) -> list[str]:
        """The keys every script of a session gets, in the order in which the scripts name them."""
        stem = self._stem(session_id)
        return [
            f"{stem}:active",
            f"{stem}:q:{session_id}",
            f"{stem}:t:{session_id}",
            f"{stem}:m:{session_id}",
            f"{stem}:d:{session_id}",
            f"{stem}:depth",
            f"{stem}:shut",
        ]

    def of_stream(self, session_id: str, turn_id: str) -> list[str]:
        """The session's hash and the turn's stream."""
        stem = self._stem(session_id)
        # Encoded, because of two IDs with colons in them none could tell where the first one ends.
        return [f"{stem}:m:{session_id}", f"{stem}:s:{quote(session_id, safe='')}:{turn_id}"]

    def of_dead(self, session_id: str) -> list[str]:
        """The index, facts and payloads of the dead letters in the session's bucket."""
        return _of_dead(self._stem(session_id))

    def of_owner(self, session_id: str) -> str:
        """The user who began the session."""
        return f"{self._stem(session_id)}:u:{session_id}"

    def of_ticket(self, digest: str) -> str:
        """A ticket, by the digest of its secret."""
        return f"{self._prefix}:ticket:{digest}"

    def of_sign_in(self, digest: str) -> str:
        """An operator's sign-in at the console, by the digest of its secret."""
        return f"{self._prefix}:console:{digest}"

    def of_budget(self, name: str, tenant: str | None = None) -> str:
        """A part of the model's budget, of all or of one tenant; all parts are in one slot."""
        stem = f"{self._prefix}:{{budget}}:{name}"
        return stem if tenant is None else f"{stem}:{quote(tenant, safe='')}"

    def of_canary(self, canary_id: str) -> str:
        """The answers to a canary."""
        return f"{self._prefix}:canary:{canary_id}"

    @property
    def rotation(self) -> str:
        """How far the rotation of keys has come."""
        return f"{self._prefix}:rotation"

    @property
    def retention(self) -> str:
        """How far a run of retention has come."""
        return f"{self._prefix}:{{retention}}"

    @property
    def retention_lock(self) -> str:
        """That a run of retention is at work."""
        return f"{self.retention}:lock"

    @property
    def retention_reports(self) -> str:
        """What the last runs of retention did."""
        return f"{self.retention}:reports"

    @property
    def limits(self) -> str:
        """What the keys of the web API's rate limits begin with."""
        return f"{self._prefix}:limit"

    def _stem(self, session_id: str) -> str:
        return f"{self._prefix}:{{{crc32(session_id.encode()) % BUCKETS}}}"


def _of_dead(stem: str) -> list[str]:
    return [f"{stem}:dead", f"{stem}:dead:facts", f"{stem}:dead:payloads"]
