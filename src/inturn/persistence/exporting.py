"""Exports: whole sessions in files of compressed JSON lines, written and read back.

A file is zstd over UTF-8 text. Its first line is `{"kind": "export", "v": 1, "at": <time>}`. Then comes for
each session a line `{"kind": "session", ...}` with the fields of `SessionState`, and after it for each of its
messages, in order of their sequence, a line `{"kind": "message", ...}` with those of `Message`. A line
`{"kind": "unreadable", "id": <session>}` voids the session that was begun before it. The last line
is `{"kind": "end", "sessions": <number>}`: a file without it was not written to its end.
"""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from inturn.audit import exporting
from inturn.errors import (
    ConfigurationError,
    InturnError,
    InvalidInputError,
    StoreError,
    StoreUnavailableError,
)
from inturn.persistence.adapter import MAX_PAGE, MessageQuery, PersistenceAdapter
from inturn.session.state import Message, SessionState, build, utcnow

FORMAT = 1
SUFFIX = ".jsonl.zst"


class Exported(NamedTuple):
    """A session as it was exported, with all its messages."""

    session: SessionState
    messages: list[Message]


class Written(NamedTuple):
    """Where an export is, and by their IDs the sessions that are not in it, with why they cannot be read."""

    path: str
    unreadable: dict[str, str]


class SessionExport:
    """Writes exports into `place`: a directory, or a URL that fsspec knows, such as `s3://bucket/folder`.

    Raises `ConfigurationError` where a package is missing, `StoreUnavailableError` where the place cannot be
    reached or written to.
    """

    def __init__(self, place: str) -> None:
        self._place = place.rstrip("/")
        _packages()

    def write(self, adapter: PersistenceAdapter, sessions: Iterable[SessionState]) -> Written:
        """Write one file with these sessions, as they are in the store; returns where it is.

        A session with a message that cannot be read is left out. When this returns the file is whole and, in
        a directory, on the disk. Its name begins with the time and ends with a random number, so that nobody
        writes over another's.
        """
        name = f"{utcnow():%Y%m%dT%H%M%S}-{secrets.token_hex(8)}{SUFFIX}"
        path = f"{self._place}/{name}"
        try:
            with _create(path) as raw, _packages().ZstdCompressor().stream_writer(raw, closefd=False) as file:
                _put(file, kind="export", v=FORMAT, at=utcnow().isoformat())
                count, unreadable = 0, {}
                for session in sessions:
                    _put(file, kind="session", **session.model_dump(mode="json", exclude={"history"}))
                    try:
                        with exporting():
                            for message in _messages(adapter, session):
                                _put(file, kind="message", **message.model_dump(mode="json"))
                        count += 1
                    except StoreUnavailableError:
                        raise
                    except StoreError as error:
                        _put(file, kind="unreadable", id=session.id)
                        unreadable[session.id] = str(error)
                _put(file, kind="end", sessions=count)
        except InturnError:
            raise  # of the store
        except Exception as error:
            # Not every file system makes an OSError of what its driver raises.
            if "://" not in path and not isinstance(error, OSError):
                raise
            raise StoreUnavailableError(
                f"INTURN_RETENTION_EXPORT: no export can be written there ({type(error).__name__})"
            ) from error
        return Written(path, unreadable)


def read_export(path: str | Path) -> Iterator[Exported]:
    """Read a file back, one session after the other; `path` may be a URL that fsspec knows.

    A session may be in several files, if it was exported and then not deleted: the one with the highest
    `version` is the last. Raises `InvalidInputError` for what is no export, of a newer release, or torn.
    """
    zstd = _packages()
    with _open(str(path)) as raw, zstd.ZstdDecompressor().stream_reader(raw, closefd=False) as plain:
        try:
            yield from _sessions(io.TextIOWrapper(plain, encoding="utf-8"), str(path))
        except (zstd.ZstdError, ValueError) as error:
            raise InvalidInputError(f"{str(path)!r} is no export ({type(error).__name__})") from error


def _sessions(lines: Iterable[str], path: str) -> Iterator[Exported]:
    current: Exported | None = None
    count, form, ended = 0, None, False
    for line in lines:
        fields: dict[str, Any] = json.loads(line)
        kind = fields.pop("kind", None)
        if kind == "export":
            form = fields.get("v")
        if form != FORMAT:
            raise InvalidInputError(f"{path!r} has format {form!r}, this release reads {FORMAT}")
        if kind == "message" and current is not None:
            current.messages.append(build(Message, fields))
        elif kind == "unreadable" and current is not None:
            current, count = None, count - 1
        elif kind in ("session", "end") and current is not None:
            yield current
            current = None
        if kind == "session":
            current, count = Exported(build(SessionState, fields), []), count + 1
        elif kind == "end":
            ended = fields.get("sessions") == count
    if not ended:
        raise InvalidInputError(
            f"{path!r} was not written to its end; {max(0, count - 1)} sessions were read"
        )


def _messages(adapter: PersistenceAdapter, session: SessionState) -> Iterator[Message]:
    after = 0
    while after < session.message_count:
        page = adapter.find_messages(
            MessageQuery(session_id=session.id, after=after, before=session.message_count + 1, limit=MAX_PAGE)
        ).items
        yield from page
        if not page:  # they have expired, or the session is gone
            return
        after = page[-1].sequence


def _put(file: Any, **fields: Any) -> None:
    file.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")


@contextmanager
def _create(path: str) -> Iterator[IO[bytes]]:
    if "://" in path:
        filesystem, name = _filesystem(path)
        # What is written there appears at the end of the transaction; what breaks off is taken back.
        with filesystem.transaction, filesystem.open(name, "wb") as opened:
            yield opened
        return
    folder, part = Path(path).parent, f"{path}.part"
    folder.mkdir(parents=True, exist_ok=True)
    # Only its owner may read what people have said.
    with open(part, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _open(path: str) -> Any:
    if "://" not in path:
        return open(path, "rb")
    filesystem, name = _filesystem(path)
    return filesystem.open(name, "rb")


def _filesystem(path: str) -> tuple[Any, str]:
    """The file system of a URL, for the caller alone, and the file's name in it."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    try:
        filesystem, name = url_to_fs(path, skip_instance_cache=True)
        return filesystem, str(name)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"INTURN_RETENTION_EXPORT: {error}") from None


def _packages() -> Any:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"exports need a package that is not installed ({error.name}): pip install 'inturn[export]'"
        ) from None
    return zstandard
