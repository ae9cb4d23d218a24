"""How a session is deleted together with its messages and turns, whoever is killed on the way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from inturn.errors import StoreUnavailableError
from inturn.persistence.adapter import Target
from inturn.persistence.opensearch.client import Client, Document, Write
from inturn.persistence.opensearch.indices import Indices, exact_time
from inturn.session.state import utcnow

ROUNDS = 100
"""How often a deletion looks again before it gives up: each time the session was changed."""
_ABANDONED = timedelta(hours=1)
"""After this time nobody is about to create a session any more that is still in phase `new`."""
_BATCH = 500


def delete(client: Client, indices: Indices, targets: Sequence[Target]) -> list[str]:
    """Delete sessions; see `PersistenceAdapter.delete_sessions`.

    One compare-and-swap to phase `dead` per session is the deletion. What is left then is removed; whoever
    is killed in between leaves it to the next call.
    """
    gone: set[str] = set()
    for start in range(0, len(targets), _BATCH):
        gone |= _kill(client, indices, targets[start : start + _BATCH])
    while dead := _find_dead(client, indices):
        bury(client, indices, dead)
    return [
        session_id
        for session_id in dict.fromkeys(target.session_id for target in targets)
        if session_id in gone
    ]


def bury(client: Client, indices: Indices, dead: Sequence[Document]) -> None:
    """Remove sessions in phase `dead`, with their messages and turns; safe to repeat and to race."""
    incarnations = [document.source["incarnation"] for document in dead]
    client.delete_where([indices.messages, indices.turns], "incarnation", incarnations)
    client.write(
        [Write("delete", indices.session(each.source["id"]), position=each.position) for each in dead]
    )


def _kill(client: Client, indices: Indices, targets: Sequence[Target]) -> set[str]:
    gone = set()
    for _ in range(ROUNDS):
        found = client.get([indices.session(target.session_id) for target in targets])
        pending = []
        writes = []
        for target, document in zip(targets, found, strict=True):
            if document is None or document.source["phase"] != "live":
                continue
            if target.version in (None, document.source["version"]):
                pending.append(target)
                writes.append(_death(indices, document))
        for target, position in zip(pending, client.write(writes), strict=True):
            if position is not None:
                gone.add(target.session_id)
        if not pending:
            return gone
        targets = pending
    raise StoreUnavailableError("sessions changed faster than they could be deleted")


def _find_dead(client: Client, indices: Indices) -> list[Document]:
    """What is to be buried: of this call, and of those that were killed."""
    old = exact_time(utcnow() - _ABANDONED)
    abandoned = [{"term": {"phase": "new"}}, {"range": {"updated_at.exact": {"lt": old}}}]
    query = {
        "bool": {
            "should": [{"term": {"phase": "dead"}}, {"bool": {"filter": abandoned}}],
            "minimum_should_match": 1,
        }
    }
    hits = client.search(indices.sessions, {"query": query, "size": _BATCH, "_source": ["id"]})["hits"][
        "hits"
    ]
    found = client.get([indices.session(hit["_source"]["id"]) for hit in hits])
    writes = [
        _death(indices, document)
        for document in found
        if document is not None and document.source["phase"] == "new" and document.source["updated_at"] < old
    ]
    client.write(writes)
    again = client.get([indices.session(hit["_source"]["id"]) for hit in hits]) if writes else found
    return [document for document in again if document is not None and document.source["phase"] == "dead"]


def _death(indices: Indices, document: Document) -> Write:
    source = {
        "id": document.source["id"],
        "phase": "dead",
        "incarnation": document.source["incarnation"],
        "updated_at": exact_time(utcnow()),
    }
    return Write("index", indices.session(document.source["id"]), source, document.position)
