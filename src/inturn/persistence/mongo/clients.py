"""Where MongoAdapter gets its client, and what becomes of pymongo's errors."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from bson.errors import BSONError
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.database import Database
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    InvalidName,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)
from pymongo.errors import ConfigurationError as PyMongoConfigurationError
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri

from inturn.errors import (
    ConfigurationError,
    InturnError,
    InvalidInputError,
    StoreError,
    StoreUnavailableError,
)
from inturn.persistence.forks import watch_forks

T = TypeVar("T")
Document = dict[str, Any]

SERVER_SECONDS = 10.0
"""How long a call waits for a server that is away, or for a connection of the pool."""
ANSWER_SECONDS = 30.0
"""How long it waits for a server that says nothing."""


class Clients(ABC):
    """Gives out the database."""

    def __init__(self, database_name: str) -> None:
        self._database_name = database_name

    @abstractmethod
    def client(self) -> MongoClient[Document]:
        """The client of this process."""

    @abstractmethod
    def close(self) -> None:
        """Close what was opened here."""

    def run(self, work: Callable[[Database[Document]], T]) -> T:
        """Return what `work` makes of the database; once more if it loses its connection on the way.

        So `work` must be such that half of it, or all of it, does no harm if it has happened before.
        pymongo's errors become ours.
        """
        try:
            database = self._database()
            try:
                return work(database)
            except AutoReconnect as error:
                # Those that have waited already would only wait again.
                if isinstance(error, NetworkTimeout | ServerSelectionTimeoutError):
                    raise
                return work(database)
        except (PyMongoError, BSONError) as error:
            # Errors end in logs, and those of the server hold whole documents, or the value that was in the
            # way.
            raise translated(error) from (error if isinstance(error, ConnectionFailure) else None)

    def _database(self) -> Database[Document]:
        # Whatever the client's own settings are: what was acknowledged survives the loss of a server, and
        # what was read is never undone, so that a session is never written over another version of the same
        # number.
        return self.client().get_database(
            self._database_name,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority"),
        )


class GivenClient(Clients):
    """A client that is the caller's."""

    def __init__(self, client: MongoClient[Document], database_name: str | None) -> None:
        super().__init__(_named(database_name or client.get_default_database("inturn").name))
        self._client = client

    def client(self) -> MongoClient[Document]:
        """See `Clients.client`."""
        return self._client

    def close(self) -> None:
        """See `Clients.close`: nothing was."""


class OwnClient(Clients):
    """A client of our own, opened by the process that first needs it."""

    def __init__(self, url: str, database_name: str | None, pool_size: int) -> None:
        if isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1:
            raise ConfigurationError(f"pool_size must be at least 1, not {pool_size}")
        super().__init__(_named(database_name or _checked(url) or "inturn"))
        self._url = url
        self._pool_size = pool_size
        self._opened: MongoClient[Document] | None = None
        self._lock = threading.Lock()
        self._closed = False
        watch_forks(self)

    def client(self) -> MongoClient[Document]:
        """See `Clients.client`."""
        with self._lock:
            if self._closed:
                raise StoreError("this adapter is closed")
            if self._opened is None:
                self._opened = MongoClient(self._url, **_options(self._url, self._pool_size))
            return self._opened

    def close(self) -> None:
        """See `Clients.close`."""
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def before_fork(self) -> None:
        """See `ForkAware`: nothing, for the parent's sockets do no harm in a child that leaves them alone."""

    def after_fork_in_child(self) -> None:
        """See `ForkAware`."""
        if self._opened is not None:
            _belong_to_parents.append(self._opened)
        self._opened = None
        self._lock = threading.Lock()


# Clients of a parent process stay referenced: their finalizers would complain that nobody closed them.
_belong_to_parents: list[MongoClient[Document]] = []


def _options(url: str, pool_size: int) -> Mapping[str, Any]:
    given = {name.lower() for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
    defaults = {
        "appname": "inturn",
        "connectTimeoutMS": 5000,
        "serverSelectionTimeoutMS": round(SERVER_SECONDS * 1000),
        "socketTimeoutMS": round(ANSWER_SECONDS * 1000),
        "waitQueueTimeoutMS": round(SERVER_SECONDS * 1000),
    }
    return {
        "maxPoolSize": pool_size,
        **{name: value for name, value in defaults.items() if name.lower() not in given},
    }


def _checked(url: str) -> str | None:
    """The name of the database in the URL, if it has one; raises `ConfigurationError` for no URL."""
    try:
        if url.startswith("mongodb+srv://"):  # the rest of it is in the DNS, which is asked when it is needed
            database = unquote(urlsplit(url).path.strip("/")) or None
            _ = urlsplit(url).port
        else:
            database = parse_uri(url, warn=False)["database"]
    except (PyMongoError, ValueError):
        # pymongo's own words may quote the password.
        raise ConfigurationError(
            "this is not a MongoDB URL; one looks like mongodb://user:password@host:27017/database, "
            "with special characters percent-encoded"
        ) from None
    return database


def _named(database: str) -> str:
    if (
        not isinstance(database, str)
        or not 0 < len(database.encode()) < 64
        or set(database) & set('/\\. "$\x00')
    ):
        raise ConfigurationError(f"{database!r} cannot name a database of MongoDB")
    return database


def is_too_large(error: Exception) -> bool:
    """Tell whether a document was refused because it would have more than 16 MB."""
    return isinstance(error, DocumentTooLarge) or not _TOO_LARGE.isdisjoint(_codes(error))


def duplicates_only(error: BulkWriteError) -> bool:
    """Tell whether nothing went wrong but that documents with these keys were there already."""
    return set(_codes(error)) == {_DUPLICATE}


def translated(error: Exception) -> InturnError:
    """Say in our words what pymongo says in its own, without a value of any document."""
    kind = type(error).__name__
    if is_too_large(error):
        return InvalidInputError(
            "this is more than MongoDB keeps in one document: a message, or a session with its data and the "
            "results of its last turns, may have 16 MB"
        )
    if isinstance(error, InvalidOperation):
        return StoreError("this client is closed, or was used in a way that pymongo refuses")
    if isinstance(error, InvalidName | PyMongoConfigurationError):
        return ConfigurationError(f"MongoDB's URL, or what it leads to, does not work ({kind})")
    if isinstance(error, ConnectionFailure):
        return StoreUnavailableError(f"MongoDB is not available: {kind}: {' '.join(str(error).split())}")
    codes = sorted(_codes(error))
    said = f"{kind} (code {', '.join(map(str, codes)) or 'unknown'})"
    if isinstance(error, ExecutionTimeout | WriteConcernError) or not _UNAVAILABLE.isdisjoint(codes):
        return StoreUnavailableError(f"MongoDB is not available: {said}")
    if not _DENIED.isdisjoint(codes):
        return StoreError(f"MongoDB refused: {said}: the URL's user or password is wrong, or may not do this")
    if not _OTHER_INDEX.isdisjoint(codes):
        return StoreError(
            f"MongoDB refused: {said}: an index of the same name or keys is there already; drop it"
        )
    return StoreError(f"MongoDB refused: {said}")


# The server's own codes; https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_DUPLICATE = 11000
_TOO_LARGE = frozenset({10334, 17419, 17420})
_DENIED = frozenset({13, 18, 8000})
_OTHER_INDEX = frozenset({85, 86})
# After these the same call may succeed later: the server is starting, stopping, electing, or too busy.
_UNAVAILABLE = frozenset(
    {
        6,
        7,
        24,
        46,
        50,
        64,
        89,
        91,
        112,
        133,
        134,
        189,
        262,
        365,
        9001,
        10107,
        11600,
        11602,
        13388,
        13435,
        13436,
        14031,
    }
)


def _codes(error: Exception) -> set[int]:
    if isinstance(error, BulkWriteError):
        details = error.details
        found = [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
        return {each["code"] for each in found if "code" in each}
    if isinstance(error, OperationFailure) and error.code is not None:
        return {error.code}
    return set()
