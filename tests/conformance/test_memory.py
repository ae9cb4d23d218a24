"""MemoryAdapter keeps the contract."""

from __future__ import annotations

import pytest

from inturn.persistence import MemoryAdapter, PersistenceAdapter
from inturn.testing.conformance import AdapterConformance


class TestMemory(AdapterConformance):
    long_session = 100_000

    @pytest.fixture
    def adapter(self) -> PersistenceAdapter:
        return MemoryAdapter()
