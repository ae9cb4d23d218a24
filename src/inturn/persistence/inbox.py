"""Inbox: every accepted turn in a table of a SQL database, until it has ended.

With `INTURN_INBOX=database` a turn is here before its producer is told yes, and goes when it has left the
mailbox. The mailbox in Redis is then a copy that may be lost: what is here and not there is put there again,
in the order of this table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Index,
    MetaData,
    Table,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    select,
)

from inturn.envelopes import Envelopes
from inturn.errors import ConfigurationError
from inturn.persistence.columns import BigInt, Json, Name, Prose, UtcTime
from inturn.persistence.models import TURN_KEY_LENGTH
from inturn.persistence.rows import turn_key
from inturn.persistence.schema import locked
from inturn.persistence.sql.sqlalchemy_connections import Duplicate, Engines, LibpqEngine, OwnEngine
from inturn.session.state import utcnow

TABLE = "agent_inbox"
MOST_TURNS = 200
"""Turns that are read at once."""
MOST_CHARS = 4_000_000
"""Characters of payloads that are read at once, beyond the first."""

_LIBPQ = ("postgresql", "postgres")
_SQL = (*_LIBPQ, "sqlite", "mysql+pymysql", "mariadb+pymysql")


class InboxTurn(NamedTuple):
    """An accepted turn; `overlap` is the policy and what it needs, as `[policy, group, share, quiet_ms]`."""

    turn_id: str
    payload: str
    overlap: list[Any]


class Inbox:
    """The turns that were accepted and have not ended, by session, in order of acceptance.

    `url` is one that `open_adapter` takes, for a database of tables. A turn that was accepted before another
    one came stands before it; of two that came at the same moment, either may. `envelopes` seal payloads.
    Every method raises `StoreUnavailableError` while the database is away, and may be repeated.
    """

    def __init__(self, url: str, *, pool_size: int = 16, envelopes: Envelopes | None = None) -> None:
        self._envelopes = envelopes or Envelopes.none()
        self._engines = _engines(url, pool_size)
        self._is_ready = False
        self._table = table = _table()
        c = table.c
        mine = c.session_id == bindparam("session")
        named = c.turn_key.in_(bindparam("keys", expanding=True))
        last = select(func.max(c.position)).where(mine, named).scalar_subquery()
        self._insert = insert(table)
        self._delete = delete(table).where(mine, named)
        self._delete_session = delete(table).where(mine)
        self._before = select(c.turn_key).where(mine, c.position < last, ~named).limit(1)
        self._turns = (
            select(c.turn_id, c.payload, c.overlap).where(mine).order_by(c.position).limit(MOST_TURNS)
        )
        self._count = select(func.count()).select_from(table).where(mine)
        self._total = select(func.count()).select_from(table)
        self._has = select(c.position).where(mine, c.turn_key == bindparam("key"))
        self._among = select(c.session_id).where(c.session_id.in_(bindparam("sessions", expanding=True)))
        self._newest = select(func.max(c.position))
        self._sessions = (
            select(c.session_id)
            .where(c.position <= bindparam("newest"), c.session_id > bindparam("after"))
            .group_by(c.session_id)
            .order_by(c.session_id)
            .limit(bindparam("limit"))
        )

    def initialize(self) -> None:
        """Create the table if it is missing, as every other method does first; once in a process.

        Any number of processes may do so at once.
        """

        def create(connection: Connection) -> None:
            with locked(connection):
                self._table.metadata.create_all(connection)

        if not self._engines.read(lambda connection: inspect(connection).has_table(TABLE)):
            self._engines.write(create, repeatable=True)
        self._is_ready = True

    def close(self) -> None:
        """Close the connections."""
        self._engines.close()

    def put(self, session_id: str, turn_id: str, payload: str, overlap: Sequence[Any]) -> bool:
        """Add a turn behind all others of its session; False: it is there already, and stays as it is."""
        row = {
            "session_id": session_id,
            "turn_key": turn_key(turn_id),
            "turn_id": turn_id,
            "payload": self._envelopes.seal(session_id, payload),
            "overlap": list(overlap),
            "accepted_at": utcnow(),
        }
        self._prepare()
        try:
            self._engines.write(
                lambda connection: connection.execute(self._insert, row), repeatable=True, single=True
            )
        except Duplicate:
            return False
        return True

    def remove(self, session_id: str, turn_ids: Sequence[str]) -> int:
        """Take out turns that have ended, or were refused after all; returns how many were there."""
        values = {"session": session_id, "keys": [turn_key(turn_id) for turn_id in turn_ids]}
        return self._written(self._delete, values) if turn_ids else 0

    def remove_session(self, session_id: str) -> int:
        """Take out all turns of a session; returns how many there were."""
        return self._written(self._delete_session, {"session": session_id})

    def is_next(self, session_id: str, turn_ids: Sequence[str]) -> bool:
        """Whether no other turn stands before the last of these; so it is with turns that are not here."""
        values = {"session": session_id, "keys": [turn_key(turn_id) for turn_id in turn_ids]}
        return not self._read(self._before, values)

    def turns(self, session_id: str) -> list[InboxTurn]:
        """The first turns of a session, in order: at most 200, and fewer if they are large."""
        found: list[InboxTurn] = []
        chars = 0
        for row in self._read(self._turns, {"session": session_id}):
            chars += len(row.payload)
            if found and chars > MOST_CHARS:
                break
            payload = self._envelopes.open(session_id, row.payload)
            found.append(InboxTurn(row.turn_id, payload, row.overlap))
        return found

    def count(self, session_id: str) -> int:
        """How many turns a session has here."""
        return int(self._read(self._count, {"session": session_id})[0][0])

    def total(self) -> int:
        """How many turns are here."""
        return int(self._read(self._total, {})[0][0])

    def has(self, session_id: str, turn_id: str) -> bool:
        """Whether a turn is here."""
        return bool(self._read(self._has, {"session": session_id, "key": turn_key(turn_id)}))

    def among(self, session_ids: Sequence[str]) -> set[str]:
        """Which of these sessions have turns here."""
        if not session_ids:
            return set()
        return {row.session_id for row in self._read(self._among, {"sessions": list(session_ids)})}

    def newest(self) -> int:
        """The place of the turn that was added last; 0: there is none."""
        return int(self._read(self._newest, {})[0][0] or 0)

    def sessions(self, newest: int, *, after: str = "", limit: int = 500) -> list[str]:
        """A page of the sessions, by ID, that have turns up to the place `newest`."""
        values = {"newest": newest, "after": after, "limit": limit}
        return [row.session_id for row in self._read(self._sessions, values)]

    def _prepare(self) -> None:
        if not self._is_ready:
            self.initialize()

    def _written(self, statement: Any, values: dict[str, Any]) -> int:
        self._prepare()
        return self._engines.write(
            lambda connection: int(connection.execute(statement, values).rowcount),
            repeatable=True,
            single=True,
        )

    def _read(self, statement: Any, values: dict[str, Any]) -> Sequence[Any]:
        self._prepare()
        return self._engines.read(lambda connection: connection.execute(statement, values).all())


def _engines(url: str, pool_size: int) -> Engines:
    scheme = url.partition("://")[0]
    if scheme not in _SQL and not scheme.startswith("sqlalchemy+"):
        raise ConfigurationError(
            f"INTURN_INBOX=database needs tables, and {scheme}:// has none: name a database in "
            "INTURN_INBOX_URL, such as postgresql://user:password@host/database, or leave INTURN_INBOX=redis"
        )
    if scheme == "sqlite" and url.removeprefix("sqlite://") in ("", "/", "/:memory:"):
        raise ConfigurationError("INTURN_INBOX=database needs a database that outlives its process")
    return LibpqEngine(url, pool_size) if scheme in _LIBPQ else OwnEngine(url, pool_size)


def _table() -> Table:
    table = Table(
        TABLE,
        MetaData(),
        Column("position", BigInt, primary_key=True, autoincrement=True),
        Column("session_id", Name(255), nullable=False),
        Column("turn_key", Name(TURN_KEY_LENGTH), nullable=False),
        Column("turn_id", Prose(), nullable=False),
        Column("payload", Prose(), nullable=False),
        Column("overlap", Json(), nullable=False),
        Column("accepted_at", UtcTime(), nullable=False),
        mysql_engine="InnoDB",
        # Places are never used again, so what is behind a turn always has a higher one.
        sqlite_autoincrement=True,
    )
    Index(f"{TABLE}_turn", table.c.session_id, table.c.turn_key, unique=True)
    Index(f"{TABLE}_place", table.c.session_id, table.c.position)
    return table
