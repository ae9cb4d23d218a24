"""Sessions in OpenSearch: the adapter, and the parts it is made of."""

from inturn.persistence.opensearch.adapter import OpenSearchAdapter
from inturn.persistence.opensearch.searching import SessionStats

__all__ = ["OpenSearchAdapter", "SessionStats"]
