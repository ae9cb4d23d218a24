"""AuditLog: appends records, each on disk before its caller goes on.

Every process writes files of its own, so that none waits for another and a crash can tear the last line of
its own file only. The files of one process are one chain: `<host>-<pid>-<random>.0001.jsonl`, then `.0002`
and so on, each going on from the hash of the last record before it.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

from inturn.audit import current_actor
from inturn.audit.records import NOTHING, Action, encode
from inturn.errors import AuditUnavailableError
from inturn.session.state import utcnow

MOST_BYTES = 64 * 2**20
"""The size at which a file is ended and the next one begun."""


class AuditLog:
    """The audit log in a directory, which is made if it is missing.

    With a `key` the records are sealed with it (HMAC): without it nobody can change one, not even by
    computing all later hashes anew. Safe to share between threads; after a fork each process begins a chain
    of its own.
    """

    def __init__(self, directory: Path | str, *, key: str | None = None) -> None:
        self._directory = Path(directory)
        self._key = None if key is None else key.encode()
        self._begin()
        _logs.add(self)

    def open(self) -> None:
        """See that records can be written; raises `AuditUnavailableError`. `append` does so by itself."""
        self._add(None)

    def append(
        self,
        action: Action,
        *,
        session_ids: Sequence[str] = (),
        user_id: str | None = None,
        turn_id: str | None = None,
        **facts: Any,
    ) -> None:
        """Add a record; when this returns it is on disk.

        `facts` are JSON values that say more, and hold nothing that was said. Raises `AuditUnavailableError`:
        then what was to be recorded must not happen.
        """
        record = {
            "action": action,
            "actor": current_actor(),
            "sessions": list(session_ids) or None,
            "user": user_id,
            "turn": turn_id,
            **facts,
        }
        self._sync(self._add({name: value for name, value in record.items() if value is not None}))

    def close(self) -> None:
        """Close the file; a later `append` begins the next one."""
        self._end_file()

    def _begin(self) -> None:
        """Begin a chain, of which nothing is written yet."""
        # Who needs both takes `_syncing` first. A file is closed by whoever has both.
        self._syncing = threading.RLock()
        self._writing = threading.Lock()
        host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:40]
        self._chain = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._file: int | None = None
        self._is_torn = False  # the file's last line may be a part of one
        self._part = 0
        self._size = 0
        self._head = NOTHING
        self._count = 0  # records that were written
        self._synced = 0  # those of them that are on disk
        self._lost = (0, 0)  # those behind the first and up to the second may not be, and never will

    def _add(self, record: dict[str, Any] | None) -> int:
        """Write a record, if any, and return the number of the last one."""
        try:
            with self._writing:
                if self._is_torn:
                    raise OSError("the last record could not be written")
                if self._file is None:
                    self._open_file()
                return self._count if record is None else self._write(record)
        except OSError as error:
            self._end_file()
            raise _unavailable(error) from error

    def _open_file(self) -> None:
        name = f"{self._chain}.{self._part + 1:04}.jsonl"
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._file = os.open(self._directory / name, flags, 0o600)
        self._part += 1
        self._size = 0
        _sync_directory(self._directory)
        self._write({"action": "open", "actor": current_actor(), "file": name})

    def _write(self, record: dict[str, Any]) -> int:
        assert self._file is not None
        number = self._count + 1
        at = utcnow().isoformat(timespec="microseconds")
        sealed = self._key is not None
        line, digest = encode(
            {**record, "at": at, "n": number, "prev": self._head, "sealed": sealed}, self._key
        )
        try:
            written = os.write(self._file, line)
        except OSError:
            self._is_torn = True
            raise
        if written < len(line):
            self._is_torn = True
            raise OSError(f"{written} of a record's {len(line)} bytes were written")
        self._head, self._count = digest, number
        self._size += len(line)
        return number

    def _sync(self, mine: int) -> None:
        """Return when record `mine` is on disk: of the threads that wait here, one does it for all."""
        with self._syncing:
            if self._lost[0] < mine <= self._lost[1]:
                raise _unavailable(OSError("a record that was written may not be on disk"))
            if self._synced >= mine:
                return
            with self._writing:
                file, written = self._file, self._count
            assert file is not None  # whoever closes it has synced, or has given up, what was in it
            try:
                os.fsync(file)
            except OSError as error:
                self._lost = (self._synced, written)
                self._end_file()
                raise _unavailable(error) from error
            self._synced = written
        if self._size >= MOST_BYTES:
            self._end_file(least=MOST_BYTES)

    def _end_file(self, *, least: int = 0) -> None:
        """Close the file if it has this size; the next record begins another."""
        with self._syncing, self._writing:
            if self._file is None or self._size < least:
                return
            file, self._file, self._is_torn = self._file, None, False
            try:
                os.fsync(file)
                self._synced = self._count
            except OSError:
                self._lost = (self._synced, self._count)
            finally:
                os.close(file)

    def _after_fork(self) -> None:
        # The parent's file stays the parent's; only our copy of its descriptor is closed.
        file = self._file
        self._begin()
        if file is not None:
            os.close(file)


_logs: WeakSet[AuditLog] = WeakSet()


def _begin_in_child() -> None:
    for each in list(_logs):
        each._after_fork()


os.register_at_fork(after_in_child=_begin_in_child)


def _unavailable(error: OSError) -> AuditUnavailableError:
    return AuditUnavailableError(
        f"the audit log cannot be written ({error.strerror or error}), and without it nothing is read or "
        "changed; see to the directory that INTURN_AUDIT_LOG names, and to its free space"
    )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
