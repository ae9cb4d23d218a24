"""Searches: listings of sessions and of a user's messages, the words of messages, statistics of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from inturn.errors import InvalidInputError
from inturn.ids import check_id
from inturn.persistence import rows
from inturn.persistence.adapter import MessageQuery, Page, SessionQuery
from inturn.persistence.opensearch.client import Client
from inturn.persistence.opensearch.committing import is_committed
from inturn.persistence.opensearch.indices import Indices, agent_key, exact_time, listed_session, message_from
from inturn.session.state import Message, SessionState
from inturn.values import to_text

MAX_SEARCH_LENGTH = 1000
"""Characters that a text to search for may have: OpenSearch refuses more than 1,024 words."""
_NAMES = 1000


@dataclass(frozen=True, slots=True)
class SessionStats:
    """What all sessions are, in numbers.

    `by_status`, `by_agent` and `by_route` count sessions; those without an agent, or in no route, are not in
    the latter two, which hold the 1,000 most frequent names. `by_day` counts sessions by the day, in UTC, on
    which they were created.
    """

    sessions: int
    messages: int
    by_status: dict[str, int]
    by_agent: dict[str, int]
    by_route: dict[str, int]
    by_day: dict[date, int]


def find_sessions(client: Client, indices: Indices, query: SessionQuery) -> Page[SessionState]:
    """See `PersistenceAdapter.find_sessions`."""
    rows.check_session_query(query)
    filters: list[dict[str, Any]] = [{"term": {"phase": "live"}}]
    terms = {"user_id": query.user_id, "agent_key": agent_key(query.agent_name), "status": query.status}
    filters += [{"term": {name: value}} for name, value in terms.items() if value is not None]
    limits = {"lt": query.older_than, "gt": query.newer_than}
    between = {name: exact_time(value) for name, value in limits.items() if value is not None}
    if between:
        filters.append({"range": {"updated_at.exact": between}})
    kind = f"sessions, {query.order} first"
    body = _listing(filters, "updated_at", query.order, query.cursor, kind)
    hits = client.search(indices.sessions, {**body, "size": query.limit + 1})["hits"]["hits"]
    found = [listed_session(hit["_source"], query) for hit in hits[: query.limit]]
    if len(hits) <= query.limit:
        return Page(found)
    return Page(found, rows.encode_cursor(kind, found[-1].updated_at, found[-1].id))


def find_messages_of_user(client: Client, indices: Indices, query: MessageQuery) -> Page[Message]:
    """See `PersistenceAdapter.find_messages`."""
    kind = f"messages of a user, {query.order} first"
    filters = [{"term": {"user_id": query.user_id}}]
    body = _listing(filters, "created_at", query.order, query.cursor, kind)
    return _committed(client, indices, body, query.limit, kind)


def search_messages(
    client: Client,
    indices: Indices,
    text: str,
    *,
    user_id: str | None,
    session_id: str | None,
    limit: int,
    cursor: str | None,
) -> Page[Message]:
    """See `OpenSearchAdapter.search_messages`."""
    if not isinstance(text, str) or not 0 < len(text) <= MAX_SEARCH_LENGTH:
        raise InvalidInputError(f"search for a text of 1 to {MAX_SEARCH_LENGTH} characters")
    rows.check_message_query(MessageQuery(user_id="anybody", limit=limit))
    # The text is a value, which `match` takes for words: nothing in it means anything to OpenSearch.
    filters: list[dict[str, Any]] = [
        {"match": {"content": {"query": to_text(text, "text"), "operator": "and"}}}
    ]
    if user_id is not None:
        filters.append({"term": {"user_id": check_id(user_id, "user ID")}})
    if session_id is not None:
        filters.append({"term": {"session_id": check_id(session_id)}})
    kind = "messages found, newest first"
    return _committed(client, indices, _listing(filters, "created_at", "newest", cursor, kind), limit, kind)


def session_stats(client: Client, indices: Indices) -> SessionStats:
    """See `OpenSearchAdapter.session_stats`."""
    names = {"by_status": "status", "by_agent": "agent_name", "by_route": "current_route"}
    aggregations: dict[str, Any] = {
        name: {"terms": {"field": field, "size": _NAMES}} for name, field in names.items()
    }
    aggregations["messages"] = {"sum": {"field": "message_count"}}
    aggregations["by_day"] = {
        "date_histogram": {
            "field": "created_at",
            "calendar_interval": "day",
            "min_doc_count": 1,
            "format": "yyyy-MM-dd",
        }
    }
    body = {
        "query": {"bool": {"filter": [{"term": {"phase": "live"}}]}},
        "size": 0,
        "track_total_hits": True,
        "aggs": aggregations,
    }
    answer = client.search(indices.sessions, body)
    found = answer["aggregations"]
    counted = {
        name: {bucket["key"]: bucket["doc_count"] for bucket in found[name]["buckets"]} for name in names
    }
    return SessionStats(
        sessions=answer["hits"]["total"]["value"],
        messages=round(found["messages"]["value"]),
        by_day={
            date.fromisoformat(bucket["key_as_string"]): bucket["doc_count"]
            for bucket in found["by_day"]["buckets"]
        },
        **counted,
    )


def _listing(
    filters: list[dict[str, Any]], time: str, order: str, cursor: str | None, kind: str
) -> dict[str, Any]:
    direction = "desc" if order == "newest" else "asc"
    body: dict[str, Any] = {
        "query": {"bool": {"filter": filters}},
        "sort": [{f"{time}.exact": direction}, {"id": direction}],
        "track_total_hits": False,
    }
    if cursor is not None:
        last, last_id = rows.decode_cursor(cursor, kind, datetime, str)
        body["search_after"] = [exact_time(last), last_id]
    return body


def _committed(
    client: Client, indices: Indices, body: Mapping[str, Any], limit: int, kind: str
) -> Page[Message]:
    """The messages that a search finds and that are committed, as they are at this moment.

    An index may still hold what was reserved and never committed, or what has been replaced or deleted since.
    """
    found: list[Message] = []
    size = limit + 1
    while True:
        hits = client.search(indices.messages, {**body, "size": size, "_source": ["session_id", "sequence"]})[
            "hits"
        ]["hits"]
        keys = [(hit["_source"]["session_id"], hit["_source"]["sequence"]) for hit in hits]
        ids = list(dict.fromkeys(session_id for session_id, _ in keys))
        fields = ["phase", "incarnation", "message_count"]
        # The sessions first: a message that was committed then does not change after it.
        sessions = dict(zip(ids, client.get([indices.session(each) for each in ids], fields), strict=True))
        messages = client.get([indices.message(*key) for key in keys])
        for hit, (session_id, _), message in zip(hits, keys, messages, strict=True):
            session = sessions[session_id]
            if message is None or session is None or not is_committed(message, session):
                continue
            if hit["sort"] == [message.source["created_at"], message.source["id"]]:
                found.append(message_from(message.source))
        if len(found) > limit:
            found = found[:limit]
            return Page(found, rows.encode_cursor(kind, found[-1].created_at, found[-1].id))
        if len(hits) < size:
            return Page(found)
        body = {**body, "search_after": hits[-1]["sort"]}
