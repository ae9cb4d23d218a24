"""Documents: what sessions, messages and turns look like in MongoDB, and the indexes they are found by.

A document has the columns of `inturn.persistence.rows`, with the ID as `_id`. JSON columns are text: keys
with dots and dollars, numbers of any size and values nested deeper than BSON allows stay what they are.
Times are text of one length, which sorts; a BSON date has no microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from bson import ObjectId
from pymongo import ASCENDING, IndexModel

from inturn.errors import StoreError
from inturn.persistence.naming import read_names
from inturn.persistence.rows import MESSAGE_COLUMNS, SESSION_COLUMNS, Row

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Collections:
    """The names of the collections."""

    sessions: str = "agent_sessions"
    messages: str = "agent_messages"
    turns: str = "agent_turns"

    @classmethod
    def named(cls, names: Mapping[str, str] | None) -> Self:
        """Read an adapter's option `collections`: names for `sessions`, `messages` and `turns`.

        Names not given are the defaults, or, if `sessions` is given, made from it: `chat` gives
        `chat_messages` and `chat_turns`, so that two sets of collections never share one.

        Raises `ConfigurationError` for a name that MongoDB does not take.
        """
        return cls(
            **read_names(
                "collections",
                names,
                _may_name,
                "use at most 120 bytes, no $, no NUL, no dot at either end",
            )
        )


def _may_name(name: str) -> bool:
    return (
        0 < len(name.encode()) <= 120
        and not set(name) & {"$", "\x00"}
        and not name.startswith((".", "system."))
        and not name.endswith(".")
        and ".." not in name
    )


def _index(*keys: str, **options: Any) -> IndexModel:
    return IndexModel([(key, ASCENDING) for key in keys], **options)


SESSION_INDEXES = (
    _index("updated_at", "_id"),
    _index("user_id", "updated_at", "_id"),
    _index("agent_name", "updated_at", "_id"),
    _index("empty", sparse=True),
)
MESSAGE_INDEXES = (
    _index("life", "sequence"),
    _index("user_id", "created_at", "_id"),
    _index("draft.session", sparse=True),
)
TURN_INDEXES = (_index("life", "turn_id", unique=True),)
"""Sessions and messages are unique by `_id`, which is their ID: that index is always there."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a session's document says at one moment.

    `row` is None if there is no session, though there may be a document without columns, of a session that is
    being created or deleted. `mark` is None if there is no document. See `inturn.persistence.mongo.store`.
    """

    session_id: str
    row: Row | None = None
    mark: ObjectId | None = None
    life: ObjectId | None = None
    recent: tuple[Document, ...] = ()

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read a document; raises `StoreError` for one of somebody else."""
        if "mark" not in document:
            raise StoreError(f"the document of session {document['_id']!r} was not written by inturn")
        row = None
        if "version" in document:
            row = {column: document.get(column) for column in SESSION_COLUMNS} | {"id": document["_id"]}
        return cls(
            document["_id"], row, document["mark"], document.get("life"), tuple(document.get("recent", ()))
        )

    @property
    def tokens(self) -> list[ObjectId]:
        """The tokens of the commits whose messages are drafts still."""
        return [commit["token"] for commit in self.recent]

    def has(self, message: Document) -> bool:
        """Tell whether a message, as it was read, is a committed one of this session."""
        draft = message.get("draft")
        return (
            self.row is not None
            and message["life"] == self.life
            and (not draft or draft["token"] in self.tokens)
        )


def session_document(row: Row, head: Head, commit: Document, recent: tuple[Document, ...]) -> Document:
    """The document of a session after `commit`, which is one of a session that was `head`."""
    document = {name: _stored(value) for name, value in row.items() if name != "id"}
    return {
        "_id": row["id"],
        **document,
        "mark": commit["token"],
        "life": life_after(head, commit["token"]),
        "recent": [*recent, commit],
    }


def life_after(head: Head, token: ObjectId) -> ObjectId:
    """The life that a session has after the commit `token`: a new one if that creates it."""
    return token if head.row is None or head.life is None else head.life


def commit_entry(token: ObjectId, version: int, turn: Row | None) -> Document:
    """What a session's document says of a commit."""
    if turn is None:
        return {"token": token}
    kept = {name: turn[name] for name in ("turn_id", "result")}
    return {"token": token, "turn": {**kept, "created_at": _stored(turn["created_at"]), "version": version}}


def message_document(row: Row, head: Head, token: ObjectId) -> Document:
    """The document of a message, as a draft of the commit `token` over `head`."""
    document = {name: _stored(value) for name, value in row.items() if name != "id"}
    draft = {"session": head.session_id, "token": token, "mark": head.mark}
    return {"_id": row["id"], "life": life_after(head, token), **document, "draft": draft}


def message_row(document: Document) -> Row:
    """Read a message's document."""
    return {column: document.get(column) for column in MESSAGE_COLUMNS} | {"id": document["_id"]}


def turn_document(turn: Document, head: Head) -> Document:
    """The document of a turn whose record was in its session's."""
    return {"life": head.life, "session_id": head.session_id, **turn}


def time_text(value: datetime) -> str:
    """A time in UTC, as it is stored."""
    return value.isoformat(timespec="microseconds")


def _stored(value: Any) -> Any:
    return time_text(value) if isinstance(value, datetime) else value
