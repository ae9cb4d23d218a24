"""open_store: the store that the settings name, in the one way in which every process opens it."""

from __future__ import annotations

from typing import Any, TypeVar

from inturn.audit.log import AuditLog
from inturn.keyring import key_ring
from inturn.persistence.adapter import PersistenceAdapter
from inturn.persistence.audited import AuditedAdapter
from inturn.persistence.encrypted import EncryptedAdapter
from inturn.persistence.guarded import GuardedAdapter
from inturn.persistence.registry import open_adapter
from inturn.settings import Settings

A = TypeVar("A", bound=PersistenceAdapter)


def open_store(settings: Settings) -> PersistenceAdapter:
    """Make the adapter of `settings.database_url`, with all that the settings put around it.

    Nothing is connected yet, and nothing created: see `PersistenceAdapter.initialize`. Raises as
    `open_adapter`.
    """
    store = open_adapter(settings.database_url.get_secret_value(), pool_size=settings.database_pool)
    # Without keys too: a process that was started without them must not write over what it cannot read.
    store = EncryptedAdapter(store, key_ring(settings.encryption_keys))
    # Around these: tombstones are sealed too, and looks at them are nothing for the audit log.
    store = GuardedAdapter(store)
    if settings.audit_log is not None:
        # Around all else: it knows who asked, and nothing of what is in the store.
        key = settings.audit_key
        log = AuditLog(settings.audit_log, key=None if key is None else key.get_secret_value())
        store = AuditedAdapter(store, log)
    return store


def layer_of(store: PersistenceAdapter, kind: type[A]) -> A | None:
    """The adapter of this class in a store that is wrapped in others."""
    layer: Any = store
    while layer is not None and not isinstance(layer, kind):
        layer = getattr(layer, "inner", None)
    return layer
