"""Reading the audit log: whether it is whole, and what it says."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from inturn.audit.records import NOTHING, digest_of, split
from inturn.errors import ConfigurationError

_NAME = re.compile(r"(?P<chain>.+)\.(?P<part>\d{4,})\.jsonl")


class Anchor(NamedTuple):
    """Where a chain stood: how many records it had, and the hash of the last one."""

    records: int
    head: str


class Broken(NamedTuple):
    """The first place of a chain that is not as it was written: file, line (0: the file itself), and why."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.why}" if self.line else f"{self.file}: {self.why}"


class Verified(NamedTuple):
    """What a verification found.

    `heads` are the chains that are whole, `broken` the first broken place of each other one. `torn` are
    files that end within a line, as a crash leaves them: that record was never finished, and nobody was told
    that it was.
    """

    heads: dict[str, Anchor]
    broken: list[Broken]
    torn: list[str]

    @property
    def records(self) -> int:
        """How many records the whole chains have."""
        return sum(anchor.records for anchor in self.heads.values())


def verify_audit_log(
    directory: Path | str,
    *,
    key: str | None = None,
    anchors: Mapping[str, Anchor] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Verified:
    """Check every record: that it is as it was written, and follows the one before it.

    A record that was changed, removed, added or moved breaks its chain. What no chain can tell by itself is
    that its last records were cut off, or that all its files are gone: for that `anchors`, the heads of an
    earlier verification that were kept elsewhere, must still be found. `key` is the one the log was written
    with. `on_progress` is called with the bytes that were read and that there are.
    """
    chains = _chains(Path(directory))
    total = sum(path.stat().st_size for parts in chains.values() for path in parts.values())
    done = 0

    def read(size: int) -> None:
        nonlocal done
        done += size
        if on_progress is not None:
            on_progress(done, total)

    found = Verified({}, [], [])
    secret = None if key is None else key.encode()
    for chain, parts in chains.items():
        check = _Check(secret, (anchors or {}).get(chain), read)
        broken = check.chain(parts)
        found.torn.extend(check.torn)
        if broken is None:
            found.heads[chain] = Anchor(check.count, check.head)
        else:
            found.broken.append(broken)
    for chain in sorted((anchors or {}).keys() - chains.keys()):
        found.broken.append(Broken(f"{chain}.0001.jsonl", 0, "it is anchored, and gone"))
    return found


def read_audit_log(
    directory: Path | str,
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    since: datetime | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the records in the order of their times; each condition given must hold.

    `user_id` finds what was done with that user's sessions, and what they did themselves (`user:ann`).
    Nothing is verified here, and lines that cannot be read are left out.
    """
    earliest = "" if since is None else since.isoformat(timespec="microseconds")

    def is_meant(record: dict[str, Any]) -> bool:
        return (
            record["action"] != "open"
            and record["at"] >= earliest
            and (session_id is None or session_id in record.get("sessions", ()))
            and (user_id is None or user_id == record.get("user") or record.get("actor") == f"user:{user_id}")
        )

    chains = [_records(parts) for parts in _chains(Path(directory)).values()]
    return (record for record in heapq.merge(*chains, key=lambda record: record["at"]) if is_meant(record))


def _chains(directory: Path) -> dict[str, dict[int, Path]]:
    """The files of each chain by their numbers, in order."""
    if not directory.is_dir():
        raise ConfigurationError(
            f"there is no audit log at {str(directory)!r}: set INTURN_AUDIT_LOG to its directory"
        )
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(directory.iterdir(), key=lambda path: (len(path.name), path.name)):
        if name := _NAME.fullmatch(path.name):
            found.setdefault(name["chain"], {})[int(name["part"])] = path
    return dict(sorted(found.items()))


def _records(parts: Mapping[int, Path]) -> Iterator[dict[str, Any]]:
    for path in parts.values():
        with path.open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                    record["at"], record["action"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue
                yield record


class _Check:
    """The check of one chain, from its first record on."""

    def __init__(self, key: bytes | None, anchor: Anchor | None, read: Callable[[int], None]) -> None:
        self.count = 0
        self.head = NOTHING
        self.torn: list[str] = []
        self._key = key
        self._anchor = anchor
        self._read = read

    def chain(self, parts: Mapping[int, Path]) -> Broken | None:
        for number in range(1, max(parts) + 1):
            if number not in parts:
                name = re.sub(r"\d+\.jsonl$", f"{number:04}.jsonl", parts[max(parts)].name)
                return Broken(name, 0, "it is gone, and later files of its chain are there")
            if (broken := self._file(parts[number])) is not None:
                return broken
        if self._anchor is not None and self.count < self._anchor.records:
            why = f"it ends with record {self.count}, and record {self._anchor.records} is anchored"
            return Broken(parts[max(parts)].name, 0, why)
        return None

    def _file(self, path: Path) -> Broken | None:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                self._read(len(line))
                if not line.endswith(b"\n"):
                    self.torn.append(path.name)
                    break
                if (why := self._line(path, number, line[:-1])) is not None:
                    return Broken(path.name, number, why)
        return None

    def _line(self, path: Path, number: int, line: bytes) -> str | None:
        parted = split(line)
        if parted is None:
            return "this is no record"
        body, digest = parted
        try:
            record = json.loads(body)
        except (ValueError, RecursionError):
            return "this is no record"
        if not isinstance(record, dict):
            return "this is no record"
        if record.get("sealed") is not (self._key is not None):
            return (
                "it is not sealed, and INTURN_AUDIT_KEY is set"
                if self._key is not None
                else "it is sealed: set INTURN_AUDIT_KEY to the key it was written with"
            )
        if digest_of(body, self._key) != digest:
            return "the record was changed, or was written with another key"
        if record.get("n") != self.count + 1 or record.get("prev") != self.head:
            return f"it does not follow record {self.count}: one was removed, added or moved"
        if (number == 1) is not (record.get("action") == "open") or (
            number == 1 and record.get("file") != path.name
        ):
            return "this record is of another file"
        self.count, self.head = self.count + 1, digest
        if self._anchor is not None and self.count == self._anchor.records and self.head != self._anchor.head:
            return "the record is another one than was anchored"
        return None
