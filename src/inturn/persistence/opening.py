"""open_store: the store that the settings name, in the one way in which every process opens it."""

from __future__ import annotations

from inturn.persistence.adapter import PersistenceAdapter
from inturn.persistence.registry import open_adapter
from inturn.settings import Settings


def open_store(settings: Settings) -> PersistenceAdapter:
    """Make the adapter of `settings.database_url`, with all that the settings put around it.

    Nothing is connected yet, and nothing created: see `PersistenceAdapter.initialize`. Raises as
    `open_adapter`.
    """
    return open_adapter(settings.database_url.get_secret_value(), pool_size=settings.database_pool)
