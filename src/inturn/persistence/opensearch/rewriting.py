"""Rewriting: other content in the documents of what is committed, while commits go on.

A document is written over exactly as it was read (`if_seq_no`), so a commit or a deletion that comes between
is seen, and it is read again. Neither a version, a count, an incarnation nor an attempt changes: to a commit
it is as if somebody had fenced it, and it looks again. The record of the last turn is part of the session's
document, and of its own one once the next commit has copied it: the session's goes first, so a copy that is
made meanwhile is either seen here, or made anew by the commit that looks again (see `committing`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inturn.errors import StoreUnavailableError
from inturn.persistence import rows
from inturn.persistence.adapter import Page
from inturn.persistence.opensearch.client import Client, Document, Place, Write
from inturn.persistence.opensearch.committing import ROUNDS, is_committed, live
from inturn.persistence.opensearch.indices import Indices
from inturn.session.state import Message, SessionState, TurnRecord

Source = Mapping[str, Any]
Change = Callable[[Document, Document], Source | None]
"""Given the live session and a document: what is to stand in its place; None: leave it."""


def find_turns(
    client: Client, indices: Indices, session_id: str, cursor: str | None, limit: int
) -> Page[TurnRecord]:
    """See `PersistenceAdapter.find_turns`."""
    rows.check_turns_query(session_id, limit)
    after = rows.turns_after(cursor)
    session = live(client.get([indices.session(session_id)])[0])
    if session is None:
        return Page([])
    filters: list[dict[str, Any]] = [
        {"term": {"session_id": session_id}},
        {"term": {"incarnation": session.source["incarnation"]}},
        # Beside the turns are the documents that say who has a message ID.
        {"range": {"turn_id": {"gt": after}}} if after else {"exists": {"field": "turn_id"}},
    ]
    client.refresh([indices.turns])  # others may have copied one just now
    body = {
        "query": {"bool": {"filter": filters}},
        "sort": [{"turn_id": "asc"}],
        "size": limit + 1,
        "track_total_hits": False,
    }
    hits = client.search(indices.turns, body)["hits"]["hits"]
    found = {hit["_source"]["turn_id"]: hit["_source"] for hit in hits}
    last = session.source["last_turn"]
    if last is not None and last["turn_id"] > after:
        found[last["turn_id"]] = last
    in_order = [found[key] for key in sorted(found)]
    return rows.page_of_turns(in_order[: limit + 1], limit)


def rewrite(
    client: Client,
    indices: Indices,
    session: SessionState | None,
    messages: Sequence[Message],
    turns: Sequence[TurnRecord],
) -> int:
    """See `PersistenceAdapter.rewrite`."""
    state, lines, records = rows.rewritten_rows(session, messages, turns)
    named = [state["id"]] if state is not None else []
    named += [row["session_id"] for row in (*lines, *records)]
    if not named:
        return 0
    place = indices.session(named[0])
    results = {row["turn_id"]: row["result"] for row in records}
    changed: set[str] = set()

    def change_session(current: Document, _: Document) -> Source | None:
        source = dict(current.source)
        last = source["last_turn"]
        is_ours = False
        if state is not None and source["version"] == state["version"]:
            is_ours = True
            source |= {name: state[name] for name in rows.REWRITTEN_OF_A_SESSION}
        has_turn = False
        if last is not None and last["turn_id"] in results:
            has_turn = True
            source["last_turn"] = {**last, "result": results[last["turn_id"]]}
            changed.add(last["turn_id"])
        return source if is_ours or has_turn else None

    def change_message(row: rows.Row) -> Change:
        def change(current: Document, document: Document) -> Source | None:
            if document.source["id"] != row["id"] or not is_committed(document, current):
                return None
            return {**document.source, **{name: row[name] for name in rows.REWRITTEN_OF_A_MESSAGE}}

        return change

    def change_turn(row: rows.Row) -> Change:
        def change(current: Document, document: Document) -> Source | None:
            if document.source["incarnation"] != current.source["incarnation"]:
                return None
            changed.add(row["turn_id"])
            return {**document.source, "result": row["result"]}

        return change

    count = 0
    if state is not None or results:
        done = _change(client, place, {place: change_session})
        count += sum(
            state is not None and document.source["version"] == state["version"] for document in done
        )
    of_messages = {indices.message(row["session_id"], row["sequence"]): change_message(row) for row in lines}
    count += len(_change(client, place, of_messages))
    _change(
        client,
        place,
        {indices.turn(row["session_id"], row["turn_id"]): change_turn(row) for row in records},
    )
    return count + len(changed)


def _change(client: Client, session: Place, changes: Mapping[Place, Change]) -> list[Document]:
    """Change documents of a session, each in one step; returns those that were, as they were before."""
    left = dict(changes)
    done: list[Document] = []
    for number in range(ROUNDS):
        if not left:
            return done
        if number:
            time.sleep(random.uniform(0.5, 1) * min(0.5, 0.02 * number))
        found = client.get([session, *left])
        current = live(found[0])
        if current is None:
            return done
        writes: dict[Place, tuple[Document, Write]] = {}
        for place, document in zip(left, found[1:], strict=True):
            if document is not None and (source := left[place](current, document)) is not None:
                writes[place] = document, Write("index", place, source, document.position)
        positions = client.write([write for _, write in writes.values()]) if writes else []
        left = {}
        for (place, (document, _)), position in zip(writes.items(), positions, strict=True):
            if position is None:
                left[place] = changes[place]
            else:
                done.append(document)
    raise StoreUnavailableError("other writers never let this change through; repeat it")
