"""SQLAlchemyAdapter: sessions in any database that SQLAlchemy speaks to; the tables are in `models.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    Select,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from inturn.errors import ConfigurationError, SessionConflictError
from inturn.persistence import rows
from inturn.persistence.adapter import (
    Committed,
    Loaded,
    MessageQuery,
    Page,
    PersistenceAdapter,
    Recorded,
    SessionQuery,
    Target,
)
from inturn.persistence.models import agent_tables
from inturn.persistence.schema import create
from inturn.persistence.sql.listing import Listing, list_messages, list_sessions
from inturn.persistence.sql.sqlalchemy_connections import Duplicate, Engines, GivenEngine, OwnEngine
from inturn.session.state import Message, SessionState, TurnRecord

_CHUNK = 500
"""IDs in one statement; databases have limits to their number."""


class SQLAlchemyAdapter(PersistenceAdapter):
    """Sessions in three tables of a database that SQLAlchemy speaks to.

    The first argument is one of

    - a URL of SQLAlchemy, such as `postgresql+psycopg://user:password@host/database`,
      `mysql+pymysql://...`, `mariadb+pymysql://...` or `sqlite:///file` (`sqlalchemy+` before it is taken
      off): the adapter keeps a pool of at most `pool_size` connections, and `close()` closes it;
    - an `Engine`: it stays yours to close. A process that was forked gets connections of its own.

    `tables` and `field_mappings` name tables and columns that are called something else than ours; see
    `inturn.persistence.models.agent_tables`. That module also has the tables as mapped classes.

    A load is one statement, so one state of the database and one round trip. A transaction that the database
    rolls back because of another one is repeated; so is a call that finds its connection lost, if it
    may be: every read, and every commit with a turn.
    """

    supports_rewriting: ClassVar[bool] = True

    def __init__(
        self,
        source: str | URL | Engine,
        *,
        tables: Mapping[str, str] | None = None,
        field_mappings: Mapping[str, Mapping[str, str]] | None = None,
        pool_size: int = 16,
    ) -> None:
        self._tables = agent_tables(MetaData(), tables=tables, field_mappings=field_mappings)
        self._engines = _engines(source, pool_size)
        sessions = self._tables.sessions
        self._load_query = _load_query(*self._tables)
        self._recorded_query = _recorded_query(sessions, self._tables.turns)
        self._update = update(sessions).where(
            sessions.c.id == bindparam("this_id"),
            sessions.c.version == bindparam("expected_version"),
            sessions.c.message_count == bindparam("expected_count"),
        )

    def initialize(self) -> None:
        """See `PersistenceAdapter.initialize`.

        Raises `StoreError` for tables that are there and lack columns: they are older, and
        `inturn db upgrade` changes them.
        """
        create(self._engines, self._tables)

    def close(self) -> None:
        """See `PersistenceAdapter.close`."""
        self._engines.close()

    def ping(self) -> None:
        """See `PersistenceAdapter.ping`."""
        self._engines.read(lambda connection: connection.execute(select(1)))

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """See `PersistenceAdapter.load`."""
        rows.check_load(session_id, last_messages, turn_id)
        turn_key = None if turn_id is None else rows.turn_key(turn_id)
        found = self._read(
            self._load_query, {"this_id": session_id, "this_turn": turn_key, "last_messages": last_messages}
        )
        if not found:
            return None
        # The session and the turn stand in the row of the newest message, or alone.
        session, _, turn = found[-1]
        messages = [message for _, message, _ in found if message["id"] is not None]
        return Loaded(
            rows.session_from_row(session),
            rows.messages_from_rows(messages),
            None if turn_id is None or turn["session_id"] is None else rows.turn_from_row(turn, turn_id),
        )

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
        session_row = _decoded(rows.session_row(saved), "collected_data", "state")
        message_rows = [_decoded(rows.message_row(message), "tool_calls", "event") for message in numbered]
        turn_row = None if turn is None else _decoded(rows.turn_row(turn), "result")

        def work(connection: Connection) -> bool:
            if expected_version == 0:
                connection.execute(insert(self._tables.sessions), session_row)
            else:
                changes = {name: value for name, value in session_row.items() if name != "id"}
                changes["this_id"] = session.id
                changes["expected_version"] = expected_version
                changes["expected_count"] = session.message_count
                # Whoever waited here for another writer's lock sees the new version, and writes nothing.
                if connection.execute(self._update, changes).rowcount == 0:
                    return False
            if turn_row is not None:
                connection.execute(insert(self._tables.turns), turn_row)
            if message_rows:
                connection.execute(insert(self._tables.messages), message_rows)
            return True

        try:
            written, taken = self._engines.write(work, repeatable=turn is not None), False
        except Duplicate:
            written, taken = False, True
        if written:
            return Committed(saved, numbered, turn)
        return self._explained(session, expected_version, turn, taken=taken)

    def recorded(self, session_id: str, turn_ids: Sequence[str]) -> Recorded:
        """See `PersistenceAdapter.recorded`."""
        keys = rows.turn_keys(session_id, turn_ids)
        found = self._read(self._recorded_query, {"this_id": session_id, "these_turns": list(keys)})
        known = frozenset(keys[turn["turn_id"]] for _, turn in found if turn["turn_id"] is not None)
        return Recorded(found[0][0]["version"] if found else 0, known)

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        listing = list_sessions(query)
        statement = _listing_query(self._tables.sessions, listing, ("updated_at", "id"), query.order)
        return listing.page([rows.listed_session(row, query) for (row,) in self._read(statement)])

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`."""
        listing = list_messages(query)
        key = ("sequence",) if query.user_id is None else ("created_at", "id")
        statement = _listing_query(self._tables.messages, listing, key, query.order)
        return listing.page([rows.message_from_row(row) for (row,) in self._read(statement)])

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`."""
        rows.check_targets(targets)
        wanted: dict[str, set[int | None]] = {}
        for target in targets:
            wanted.setdefault(target.session_id, set()).add(target.version)
        sessions, messages, turns = self._tables

        def work(connection: Connection) -> set[str]:
            gone: set[str] = set()
            for ids in _chunks(sorted(wanted)):
                # Always in this order, so that two deletions never wait for each other.
                locked = select(sessions.c.id, sessions.c.version).where(sessions.c.id.in_(ids))
                found = connection.execute(locked.order_by(sessions.c.id).with_for_update())
                doomed = [id_ for id_, version in found if wanted[id_] & {None, version}]
                connection.execute(delete(messages).where(messages.c.session_id.in_(doomed)))
                connection.execute(delete(turns).where(turns.c.session_id.in_(doomed)))
                connection.execute(delete(sessions).where(sessions.c.id.in_(doomed)))
                gone.update(doomed)
            return gone

        gone = self._engines.write(work, repeatable=False)
        return [session_id for session_id in wanted if session_id in gone]

    def find_turns(self, session_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[TurnRecord]:
        """See `PersistenceAdapter.find_turns`."""
        rows.check_turns_query(session_id, limit)
        turns = self._tables.turns
        statement = (
            select(*_labelled(0, {column.key: column for column in turns.c}))
            .where(turns.c.session_id == session_id, turns.c.turn_id > rows.turns_after(cursor))
            .order_by(turns.c.turn_id)
            .limit(limit + 1)
        )
        return rows.page_of_turns([row for (row,) in self._read(statement)], limit)

    def rewrite(
        self,
        session: SessionState | None = None,
        messages: Sequence[Message] = (),
        turns: Sequence[TurnRecord] = (),
    ) -> int:
        """See `PersistenceAdapter.rewrite`."""
        session_row, message_rows, turn_rows = rows.rewritten_rows(session, messages, turns)
        sessions, stored, remembered = self._tables

        def work(connection: Connection) -> int:
            done = 0
            if session_row is not None:
                row = _decoded(session_row, *rows.REWRITTEN_OF_A_SESSION)
                mine = and_(sessions.c.id == row["id"], sessions.c.version == row["version"])
                done += _changed(connection, sessions, mine, row, rows.REWRITTEN_OF_A_SESSION)
            for message_row in message_rows:
                row = _decoded(message_row, "tool_calls", "event")
                mine = and_(stored.c.id == row["id"], stored.c.session_id == row["session_id"])
                done += _changed(connection, stored, mine, row, rows.REWRITTEN_OF_A_MESSAGE)
            for turn_row in turn_rows:
                row = _decoded(turn_row, "result")
                mine = and_(
                    remembered.c.session_id == row["session_id"], remembered.c.turn_id == row["turn_id"]
                )
                done += _changed(connection, remembered, mine, row, ("result",))
            return done

        return self._engines.write(work, repeatable=True)

    def _explained(
        self, session: SessionState, expected_version: int, turn: TurnRecord | None, *, taken: bool
    ) -> Committed:
        """Say why a commit has written nothing: by what is returned if the turn is there, else by what is
        raised.
        """
        current = self.load(session.id, turn_id=None if turn is None else turn.turn_id)
        if current is not None and current.turn is not None:
            return Committed(session, [], current.turn, repeated=True)
        stored = None if current is None else rows.session_row(current.session)
        rows.check_current(session, expected_version, stored)
        if taken:
            raise rows.taken_message_id()
        # What was in the way a moment ago is gone since.
        raise SessionConflictError(
            session.id, expected_version, None if stored is None else stored["version"]
        )

    def _read(
        self, statement: Select[Any], parameters: Mapping[str, Any] | None = None
    ) -> list[tuple[rows.Row, ...]]:
        """The rows found, each split into the rows of the tables that the columns' labels name."""
        found = self._engines.read(
            lambda connection: connection.execute(statement, parameters or {}).mappings().all()
        )
        return [tuple(_split(dict(row))) for row in found]


def _engines(source: object, pool_size: int) -> Engines:
    if isinstance(source, Engine):
        return GivenEngine(source)
    if isinstance(source, str | URL):
        return OwnEngine(source, pool_size)
    raise ConfigurationError(f"a SQLAlchemyAdapter takes a URL or an Engine, not {type(source).__name__}")


def _labelled(number: int, columns: Mapping[str, ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [column.label(f"{number}_{name}") for name, column in columns.items()]


def _split(row: Mapping[str, Any]) -> Iterator[rows.Row]:
    """Undo `_labelled`."""
    parts: dict[str, rows.Row] = {}
    for label, value in row.items():
        number, _, name = label.partition("_")
        parts.setdefault(number, {})[name] = value
    yield from parts.values()


def _load_query(sessions: Table, messages: Table, turns: Table) -> Select[Any]:
    """One session with its newest messages, oldest first; and the turn.

    Session and turn are in the last row only: repeated in each they would be most of what is sent.
    """
    newest = (
        select(*(column.label(column.key) for column in messages.c))
        .where(messages.c.session_id == bindparam("this_id"))
        .order_by(messages.c.sequence.desc())
        .limit(bindparam("last_messages"))
        .subquery("newest")
    )
    # Numbered outside, for some databases would number the whole history first.
    nth = func.row_number().over(order_by=newest.c.sequence.desc()).label("nth")
    window = select(newest, nth).subquery("history")
    last = or_(window.c.nth.is_(None), window.c.nth == 1)
    once = [{column.key: case((last, column)) for column in table.c} for table in (sessions, turns)]
    return (
        select(
            *_labelled(0, once[0]),
            *_labelled(1, {column.key: window.c[column.key] for column in messages.c}),
            *_labelled(2, once[1]),
        )
        .select_from(sessions)
        .outerjoin(window, window.c.session_id == sessions.c.id)
        .outerjoin(
            turns, and_(turns.c.session_id == sessions.c.id, turns.c.turn_id == bindparam("this_turn"))
        )
        .where(sessions.c.id == bindparam("this_id"))
        .order_by(window.c.nth.desc())
    )


def _recorded_query(sessions: Table, turns: Table) -> Select[Any]:
    """One session's version, in a row for each of the turns that it has, or alone."""
    asked = turns.c.turn_id.in_(bindparam("these_turns", expanding=True))
    return (
        select(*_labelled(0, {"version": sessions.c.version}), *_labelled(1, {"turn_id": turns.c.turn_id}))
        .select_from(sessions)
        .outerjoin(turns, and_(turns.c.session_id == sessions.c.id, asked))
        .where(sessions.c.id == bindparam("this_id"))
    )


_COMPARED: dict[str, Callable[[Table, Any], ColumnElement[bool]]] = {
    "older_than": lambda table, time: table.c.updated_at < time,
    "newer_than": lambda table, time: table.c.updated_at > time,
    "after": lambda table, sequence: table.c.sequence > sequence,
    "before": lambda table, sequence: table.c.sequence < sequence,
}


def _listing_query(table: Table, listing: Listing, key: Sequence[str], order: str) -> Select[Any]:
    """A page of a table, ordered by the columns `key`."""
    newest = order == "newest"
    statement = select(*_labelled(0, {column.key: column for column in table.c}))
    start = {}
    for name, value in listing.parameters.items():
        if name in _COMPARED:
            statement = statement.where(_COMPARED[name](table, value))
        elif name.startswith("last_"):
            start[name.removeprefix("last_")] = value
        elif name != "limit":
            statement = statement.where(table.c[name] == value)
    if start:
        statement = statement.where(_beyond([(table.c[name], start[name]) for name in key], newest=newest))
    columns = [table.c[name] for name in key]
    return statement.order_by(*(column.desc() if newest else column.asc() for column in columns)).limit(
        listing.parameters["limit"]
    )


def _beyond(start: list[tuple[ColumnElement[Any], Any]], *, newest: bool) -> ColumnElement[bool]:
    """What comes after `start`. Not as a comparison of rows, for which MySQL uses no index."""
    (column, value), *rest = start
    beyond: ColumnElement[bool] = column < value if newest else column > value
    if not rest:
        return beyond
    not_before = column <= value if newest else column >= value
    return and_(not_before, or_(beyond, _beyond(rest, newest=newest)))


def _changed(
    connection: Connection, table: Table, mine: ColumnElement[bool], row: rows.Row, names: Sequence[str]
) -> int:
    """Change some columns of one row; returns how many rows there were, 1 or 0."""
    statement = update(table).where(mine).values({table.c[name]: row[name] for name in names})
    return int(connection.execute(statement).rowcount)


def _decoded(row: rows.Row, *names: str) -> rows.Row:
    """A row with its JSON as SQLAlchemy takes it, which encodes it in the database's own way."""
    return row | {name: json.loads(row[name]) for name in names if row[name] is not None}


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
