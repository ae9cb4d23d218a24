"""OpenSearchAdapter keeps the contract: by URL, and on a caller's client with other indices."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest
from opensearchpy import OpenSearch

from inturn.persistence import OpenSearchAdapter, PersistenceAdapter, open_adapter
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen
from inturn.testing.conformance.lifecycle import LifecycleConformance
from inturn.testing.conformance.listings import ListingConformance
from tests.servers_opensearch import noida_db, opensearch


@pytest.fixture(scope="module")
def opensearch_url() -> Iterator[str]:
    with opensearch() as url:
        yield url


@pytest.fixture(scope="class")
def indices() -> dict[str, str]:
    """Names that no other test has."""
    return {"sessions": f"inturn-test-{secrets.token_hex(4)}"}


class TestOpenSearch(AdapterConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, opensearch_url: str, indices: dict[str, str]) -> Iterator[PersistenceAdapter]:
        with open_adapter(opensearch_url, indices=indices) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, opensearch_url: str, indices: dict[str, str]) -> Reopen:
        return partial(open_adapter, opensearch_url, indices=indices, pool_size=2)


@pytest.mark.variant
class TestOpenSearchClient(AdapterConformance):
    """A caller's client, and names for all indices."""

    long_session = 1000

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, opensearch_url: str, indices: dict[str, str]) -> Iterator[PersistenceAdapter]:
        name = indices["sessions"]
        named = {"sessions": f"{name}.chat", "messages": f"{name}.said", "turns": f"{name}.done"}
        with (
            closing(OpenSearch(opensearch_url.replace("opensearch", "http", 1))) as client,
            OpenSearchAdapter(client, indices=named) as adapter,
        ):
            yield adapter


class TestSecondOpinion(LifecycleConformance, ListingConformance):
    """Listings where nothing is found before a refresh, as in a real OpenSearch."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PersistenceAdapter]:
        with (
            noida_db(tmp_path_factory.mktemp("noida")) as url,
            open_adapter(url) as adapter,
        ):
            yield adapter
