"""open_adapter: from a URL to the adapter of its scheme."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from inturn.errors import ConfigurationError, MissingDriverError
from inturn.persistence.adapter import PersistenceAdapter

_ADAPTERS = {
    "memory": "inturn.persistence.memory:MemoryAdapter",
    "sqlite": "inturn.persistence.sqlite:SQLiteAdapter",
    "postgresql": "inturn.persistence.postgresql:PostgreSQLAdapter",
    "postgres": "inturn.persistence.postgresql:PostgreSQLAdapter",
    "mysql+pymysql": "inturn.persistence.sqlalchemy:SQLAlchemyAdapter",
    "mariadb+pymysql": "inturn.persistence.sqlalchemy:SQLAlchemyAdapter",
    "sqlalchemy": "inturn.persistence.sqlalchemy:SQLAlchemyAdapter",
    "redis": "inturn.persistence.redis:RedisAdapter",
    "rediss": "inturn.persistence.redis:RedisAdapter",
    "unix": "inturn.persistence.redis:RedisAdapter",
    "mongodb": "inturn.persistence.mongodb:MongoAdapter",
    "mongodb+srv": "inturn.persistence.mongodb:MongoAdapter",
    "opensearch": "inturn.persistence.opensearch:OpenSearchAdapter",
    "opensearchs": "inturn.persistence.opensearch:OpenSearchAdapter",
}
DRIVERS = {
    "psycopg": "psycopg[binary,pool]",
    "psycopg_pool": "psycopg[binary,pool]",
    "pymysql": "inturn[mysql]",
    "sqlalchemy": "sqlalchemy",
    "redis": "redis",
    "pymongo": "inturn[mongodb]",
    "bson": "inturn[mongodb]",
    "opensearchpy": "inturn[opensearch]",
}
"""What to install, by the module that is missing."""
_NOT_EVERYWHERE = frozenset({"pool_size"})


def open_adapter(url: str, **options: Any) -> PersistenceAdapter:
    """Make the adapter for `url`; it opens its own connections, when they are needed, and closes them.

    - `memory://` (this process's memory, gone with the adapter)
    - `sqlite:///sessions.db` (a file, relative to the working directory)
    - `sqlite:////var/lib/inturn/sessions.db` (a file, absolute)
    - `sqlite:///:memory:` (a SQLite database of this adapter alone)
    - `postgresql://user:password@host:5432/database?sslmode=require` (with any parameter of libpq)
    - `postgres://...` (the same)
    - `mariadb+pymysql://user:password@host:3306/database` (with any parameter of PyMySQL)
    - `mysql+pymysql://...` (the same for MySQL)
    - `sqlalchemy+postgresql+psycopg://...` (any URL of SQLAlchemy after `sqlalchemy+`)
    - `redis://user:password@host:6379/0` (with any parameter of redis-py)
    - `rediss://...` (the same, over TLS)
    - `unix:///run/redis.sock?db=0` (the same, through a socket)
    - `mongodb://user:password@host:27017/database` (with any option of MongoDB's connection strings)
    - `mongodb+srv://...` (the same, with the servers' names in the DNS)
    - `opensearch://user:password@host:9200` (OpenSearch; a path is what its paths begin with)
    - `opensearchs://user:password@host:9200?ca_certs=ca.pem` (the same, over TLS)

    `options` are those of the adapter's class. `pool_size` may be given for every URL and is left out where
    there is no pool.

    Raises `ConfigurationError` for a URL or an option that does not exist, `MissingDriverError` if the
    scheme's driver is not installed. Messages never show the URL: it may hold a password.
    """
    scheme, separator, rest = url.partition("://") if isinstance(url, str) else ("", "", "")
    if not separator:
        raise ConfigurationError(
            f"this is not a database URL; one begins with {_listed(f'{known}://' for known in _ADAPTERS)}"
        )
    kind = "sqlalchemy" if scheme.startswith("sqlalchemy+") else scheme
    if kind not in _ADAPTERS:
        close = difflib.get_close_matches(scheme.lower(), _ADAPTERS, n=1)
        hint = f"; did you mean {close[0]}://?" if close else ""
        raise ConfigurationError(
            f"no adapter for {scheme}:// among {_listed(f'{known}://' for known in _ADAPTERS)}{hint}"
        )
    adapter = _load(kind)
    if scheme == "memory" and rest.strip("/"):
        raise ConfigurationError("memory:// takes nothing after it")
    known = inspect.signature(adapter).parameters
    given = {name: value for name, value in options.items() if name in known or name not in _NOT_EVERYWHERE}
    if unknown := given.keys() - known.keys():
        raise ConfigurationError(f"{scheme}:// has no option {_listed(map(repr, sorted(unknown)))}")
    return adapter(**given) if scheme == "memory" else adapter(url, **given)


def _load(scheme: str) -> Callable[..., PersistenceAdapter]:
    module, _, name = _ADAPTERS[scheme].partition(":")
    try:
        adapter: Callable[..., PersistenceAdapter] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in DRIVERS:
            raise
        raise MissingDriverError(
            f"{scheme}:// needs {missing}, which is not installed: pip install '{DRIVERS[missing]}'"
        ) from error
    return adapter


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
