"""Persistence: adapters, one per backend, and what is built once above them.

Importing this package loads no driver; each name below loads what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from inturn.errors import MissingDriverError

if TYPE_CHECKING:
    from inturn.persistence.adapter import (
        Committed,
        Loaded,
        MessageQuery,
        Page,
        PersistenceAdapter,
        SessionQuery,
        Target,
    )
    from inturn.persistence.archiving import ArchivingAdapter
    from inturn.persistence.audited import AuditedAdapter
    from inturn.persistence.encrypted import EncryptedAdapter
    from inturn.persistence.manager import PersistenceManager
    from inturn.persistence.memory import MemoryAdapter
    from inturn.persistence.mongodb import MongoAdapter
    from inturn.persistence.opensearch import OpenSearchAdapter
    from inturn.persistence.postgresql import PostgreSQLAdapter
    from inturn.persistence.redis import RedisAdapter
    from inturn.persistence.registry import open_adapter
    from inturn.persistence.repositories import MessageRepository, SessionRepository
    from inturn.persistence.sqlalchemy import SQLAlchemyAdapter
    from inturn.persistence.sqlite import SQLiteAdapter

_HOMES = {
    "ArchivingAdapter": "archiving",
    "AuditedAdapter": "audited",
    "Committed": "adapter",
    "EncryptedAdapter": "encrypted",
    "Loaded": "adapter",
    "MemoryAdapter": "memory",
    "MessageQuery": "adapter",
    "MessageRepository": "repositories",
    "MongoAdapter": "mongodb",
    "OpenSearchAdapter": "opensearch",
    "Page": "adapter",
    "PersistenceAdapter": "adapter",
    "PersistenceManager": "manager",
    "PostgreSQLAdapter": "postgresql",
    "RedisAdapter": "redis",
    "SQLAlchemyAdapter": "sqlalchemy",
    "SQLiteAdapter": "sqlite",
    "SessionQuery": "adapter",
    "SessionRepository": "repositories",
    "Target": "adapter",
    "open_adapter": "registry",
}

__all__ = [
    "ArchivingAdapter",
    "AuditedAdapter",
    "Committed",
    "EncryptedAdapter",
    "Loaded",
    "MemoryAdapter",
    "MessageQuery",
    "MessageRepository",
    "MongoAdapter",
    "OpenSearchAdapter",
    "Page",
    "PersistenceAdapter",
    "PersistenceManager",
    "PostgreSQLAdapter",
    "RedisAdapter",
    "SQLAlchemyAdapter",
    "SQLiteAdapter",
    "SessionQuery",
    "SessionRepository",
    "Target",
    "open_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOMES[name]}"
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        from inturn.persistence.registry import DRIVERS

        missing = (error.name or "").partition(".")[0]
        if missing not in DRIVERS:
            raise
        raise MissingDriverError(
            f"{name} needs {missing}, which is not installed: pip install '{DRIVERS[missing]}'"
        ) from error


def __dir__() -> list[str]:
    return __all__
