"""MongoAdapter: sessions in MongoDB, through pymongo; how a commit is atomic is told in `mongo/store.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

from bson import ObjectId
from pymongo import MongoClient

from inturn.errors import ConfigurationError, StoreError, StoreUnavailableError
from inturn.persistence import rows
from inturn.persistence.adapter import (
    Committed,
    Loaded,
    MessageQuery,
    Page,
    PersistenceAdapter,
    SessionQuery,
    Target,
)
from inturn.persistence.mongo.clients import Clients, GivenClient, OwnClient
from inturn.persistence.mongo.documents import Collections, Document, Head, message_row, time_text
from inturn.persistence.mongo.store import Store
from inturn.session.state import Message, SessionState, TurnRecord

T = TypeVar("T")

_TRIES = 25
_STATE = ("collected_data", "state")


class MongoAdapter(PersistenceAdapter):
    """Sessions in three collections of a MongoDB database.

    The first argument is one of

    - a URL, `mongodb://user:password@host:27017/database` or `mongodb+srv://...`, with any option of
      MongoDB's connection strings: the adapter keeps a client of at most `pool_size` connections, opened in
      the process that first needs it, and `close()` closes it;
    - a `pymongo.MongoClient`, which stays yours to close, and to replace after a fork.

    `database_name` is the database's; without it the URL's, else `inturn`. `collections` names the
    collections: `{"sessions": "chat", "messages": "chat_lines"}`; see
    `inturn.persistence.mongo.documents.Collections.named` for what is left out.

    Replica sets, sharded clusters and single servers are used alike, without transactions. Reads and writes
    are those of a majority, on the primary, whatever the client's own settings. A load takes two round trips,
    three if it asks for a turn. A call that loses its connection is repeated once on another one.
    """

    supports_rewriting: ClassVar[bool] = True

    def __init__(
        self,
        client_or_url: MongoClient[Document] | str,
        *,
        database_name: str | None = None,
        collections: Mapping[str, str] | None = None,
        pool_size: int = 16,
    ) -> None:
        self._names = Collections.named(collections)
        self._clients = _clients(client_or_url, database_name, pool_size)

    def initialize(self) -> None:
        """See `PersistenceAdapter.initialize`."""
        self._run(Store.create_indexes)

    def close(self) -> None:
        """See `PersistenceAdapter.close`."""
        self._clients.close()

    def ping(self) -> None:
        """See `PersistenceAdapter.ping`."""
        self._run(lambda store: store.database.command("ping"))

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """See `PersistenceAdapter.load`."""
        rows.check_load(session_id, last_messages, turn_id)
        turn_key = None if turn_id is None else rows.turn_key(turn_id)

        def read(store: Store) -> Loaded | None:
            for _ in range(_TRIES):
                head = store.head(session_id)
                if head.row is None:
                    return None
                turn = None if turn_key is None else store.turn(head, turn_key)
                count = head.row["message_count"]
                messages = store.window(head, max(1, count - last_messages + 1), count)
                if messages is not None:
                    return Loaded(
                        rows.session_from_row(head.row), _messages(messages), _turn(head, turn, turn_id)
                    )
            raise _incomplete(session_id)

        return self._run(read)

    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        """See `PersistenceAdapter.commit`."""
        saved, numbered = rows.next_commit(session, messages, expected_version, turn)
        session_row = rows.session_row(saved)
        message_rows = [rows.message_row(message) for message in numbered]
        turn_row = None if turn is None else rows.turn_row(turn)
        tokens: set[ObjectId] = set()

        def write(store: Store) -> Committed:
            for _ in range(_TRIES):
                head = store.head(session.id, without=_STATE)
                if not tokens.isdisjoint(head.tokens):  # an answer was lost, the commit was not
                    return Committed(saved, numbered, turn)
                if turn is not None and turn_row is not None:
                    known = _turn(head, store.turn(head, turn_row["turn_id"]), turn.turn_id)
                    if known is not None:
                        return Committed(session, [], known, repeated=True)
                rows.check_current(session, expected_version, head.row)
                if len({row["id"] for row in message_rows}) < len(message_rows):
                    raise rows.taken_message_id()
                token = ObjectId()
                tokens.add(token)
                if store.try_commit(head, token, session_row, message_rows, turn_row):
                    return Committed(saved, numbered, turn)
            raise StoreUnavailableError(
                f"session {session.id!r} is written to by too many at once; repeat the call"
            )

        return self._run(write)

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        rows.check_session_query(query)
        listing = _Listing("sessions", query.order, query.cursor, "updated_at", query.limit)
        times: dict[str, str] = {"$gt": ""}  # documents without columns are no sessions
        if query.newer_than is not None:
            times["$gt"] = _time(query.newer_than)
        if query.older_than is not None:
            times["$lt"] = _time(query.older_than)
        fields = {name: getattr(query, name) for name in ("user_id", "agent_name", "status")}
        wanted = {name: value for name, value in fields.items() if value is not None}

        def read(store: Store) -> list[Document]:
            selected = {**wanted, "$and": [{"updated_at": times}, *listing.conditions]}
            return list(store.sessions.find(selected).sort(listing.sort).limit(query.limit + 1))

        found = [Head.of(document).row for document in self._run(read)]
        return listing.page([rows.listed_session(row, query) for row in found if row is not None])

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`."""
        rows.check_message_query(query)
        if query.session_id is not None:
            return self._find_of_session(query.session_id, query)
        listing = _Listing("messages of a user", query.order, query.cursor, "created_at", query.limit)

        def read(store: Store) -> list[Document]:
            found: list[Document] = []
            conditions = listing.conditions
            while len(found) <= query.limit:
                selected = {"user_id": query.user_id, **({"$and": conditions} if conditions else {})}
                some = list(store.messages.find(selected).sort(listing.sort).limit(query.limit + 1))
                found += store.committed(some)
                if len(some) <= query.limit:
                    break
                conditions = listing.beyond(some[-1]["created_at"], some[-1]["_id"])
            return found[: query.limit + 1]

        return listing.page(_messages(self._run(read)))

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`."""
        rows.check_targets(targets)
        gone: set[str] = set()

        def write(store: Store) -> None:
            gone.update(store.empty(targets))
            store.remove_empty()

        self._run(write)
        return [session_id for session_id in dict.fromkeys(id for id, _ in targets) if session_id in gone]

    def find_turns(self, session_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[TurnRecord]:
        """See `PersistenceAdapter.find_turns`."""
        rows.check_turns_query(session_id, limit)
        after = rows.turns_after(cursor)

        def read(store: Store) -> list[Document]:
            return store.turns_after(store.head(session_id, without=_STATE), after, limit + 1)

        found = [{**turn, "session_id": session_id} for turn in self._run(read)]
        return rows.page_of_turns(found, limit)

    def rewrite(
        self,
        session: SessionState | None = None,
        messages: Sequence[Message] = (),
        turns: Sequence[TurnRecord] = (),
    ) -> int:
        """See `PersistenceAdapter.rewrite`; one round trip for each row."""
        session_row, message_rows, turn_rows = rows.rewritten_rows(session, messages, turns)
        ids = [row["session_id"] for row in (*message_rows, *turn_rows)]
        ids += [session_row["id"]] if session_row is not None else []

        def write(store: Store) -> int:
            head = store.head(ids[0], without=_STATE)
            if head.row is None:
                return 0
            return sum(
                (
                    *(store.rewrite_message(row) for row in message_rows),
                    *(store.rewrite_turn(head, row) for row in turn_rows),
                    *(store.rewrite_session(row) for row in (session_row,) if row is not None),
                )
            )

        return self._run(write) if ids else 0

    def _find_of_session(self, session_id: str, query: MessageQuery) -> Page[Message]:
        newest, kind = query.order == "newest", f"messages of a session, {query.order} first"
        last_seen = None if query.cursor is None else rows.decode_cursor(query.cursor, kind, int)[0]

        def read(store: Store) -> Page[Message]:
            for _ in range(_TRIES):
                head = store.head(session_id, without=_STATE)
                if head.row is None:
                    return Page([])
                first, last = _bounds(query, head.row["message_count"], last_seen)
                more = last - first + 1 > query.limit
                start = max(first, last - query.limit + 1) if newest else first
                found = store.window(head, start, last if newest else min(last, first + query.limit - 1))
                if found is not None:
                    items = _messages(found)[:: -1 if newest else 1]
                    return Page(items, rows.encode_cursor(kind, items[-1].sequence) if more else None)
            raise _incomplete(session_id)

        return self._run(read)

    def _run(self, work: Callable[[Store], T]) -> T:
        return self._clients.run(lambda database: work(Store(database, self._names)))


class _Listing:
    """The order and the cursor of a query by time, then ID."""

    def __init__(self, kind: str, order: str, cursor: str | None, time: str, limit: int) -> None:
        self._newest = order == "newest"
        self._kind = f"{kind}, {order} first"
        self._time = time
        self._limit = limit
        self.sort = [(time, -1 if self._newest else 1), ("_id", -1 if self._newest else 1)]
        self.conditions: list[Document] = []
        if cursor is not None:
            last_time, last_id = rows.decode_cursor(cursor, self._kind, datetime, str)
            self.conditions = self.beyond(time_text(last_time), last_id)

    def beyond(self, time: str, id: str) -> list[Document]:
        """What is true for everything after this time and ID."""
        beyond = "$lt" if self._newest else "$gt"
        # The first is implied by the second, and is what an index can be searched by.
        return [
            {self._time: {f"{beyond}e": time}},
            {"$or": [{self._time: {beyond: time}}, {self._time: time, "_id": {beyond: id}}]},
        ]

    def page(self, found: list[Any]) -> Page[Any]:
        """Make a page of what was found: one item more than asked for tells that there are more."""
        if len(found) <= self._limit:
            return Page(found)
        last = found[self._limit - 1]
        return Page(found[: self._limit], rows.encode_cursor(self._kind, getattr(last, self._time), last.id))


def _bounds(query: MessageQuery, count: int, last_seen: int | None) -> tuple[int, int]:
    """The first and the last sequence that a query asks for."""
    first = max(query.after or 0, 0) + 1
    last = count if query.before is None else min(query.before - 1, count)
    if last_seen is not None and query.order == "newest":
        last = min(last, last_seen - 1)
    elif last_seen is not None:
        first = max(first, last_seen + 1)
    return first, last


def _clients(source: object, database_name: str | None, pool_size: int) -> Clients:
    if isinstance(source, str) and source.startswith(("mongodb://", "mongodb+srv://")):
        return OwnClient(source, database_name, pool_size)
    if isinstance(source, MongoClient):
        return GivenClient(source, database_name)
    raise ConfigurationError(
        "a MongoAdapter takes a URL, mongodb://... or mongodb+srv://..., or a MongoClient, "
        f"not {type(source).__name__}"
    )


def _messages(documents: Sequence[Document]) -> list[Message]:
    return [rows.message_from_row(message_row(document)) for document in documents]


def _turn(head: Head, found: Document | None, turn_id: str | None) -> TurnRecord | None:
    if found is None or turn_id is None:
        return None
    return rows.turn_from_row({**found, "session_id": head.session_id}, turn_id)


def _time(value: datetime) -> str:
    return time_text(value.astimezone(UTC))


def _incomplete(session_id: str) -> StoreError:
    return StoreError(f"messages of session {session_id!r} are missing: its count says that there are more")
