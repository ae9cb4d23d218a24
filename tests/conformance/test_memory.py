"""MemoryAdapter keeps the contract."""

from __future__ import annotations

import pytest

from inturn.persistence import MemoryAdapter, PersistenceAdapter
from inturn.testing.conformance import AdapterConformance


class TestMemory(AdapterConformance):
    @pytest.fixture
    def adapter(self) -> PersistenceAdapter:
        return MemoryAdapter()
