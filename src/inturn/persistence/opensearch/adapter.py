"""OpenSearchAdapter: sessions in OpenSearch, through opensearch-py; the protocol is in `committing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from opensearchpy import OpenSearch

from inturn.errors import ConfigurationError, StoreError
from inturn.persistence import rows
from inturn.persistence.adapter import (
    Committed,
    Loaded,
    MessageQuery,
    Page,
    PersistenceAdapter,
    SessionQuery,
    Target,
)
from inturn.persistence.opensearch import burying, rewriting, searching
from inturn.persistence.opensearch.client import Client, Document, Place
from inturn.persistence.opensearch.committing import Attempt, is_committed, known_turn, live
from inturn.persistence.opensearch.indices import MAPPINGS, Indices, message_from, session_from, turn_from
from inturn.persistence.opensearch.searching import SessionStats
from inturn.session.state import Message, SessionState, TurnRecord

_TRIES = 5


class OpenSearchAdapter(PersistenceAdapter):
    """Sessions in three indices of an OpenSearch, where their messages can be searched.

    The first argument is one of

    - `opensearch://user:password@host:9200`, or `opensearchs://...` for TLS, with the parameters
      `?ca_certs=/path/to/ca.pem` and `?verify_certs=false`: the adapter keeps at most `pool_size`
      connections, opened in the process that first needs them, and `close()` closes them;
    - an `opensearchpy.OpenSearch`: it stays yours to close, and does not survive a fork.

    `indices` names the indices: `{"sessions": "chat_sessions", "messages": "chat_messages"}`; see
    `Indices.named` for what is left out. With `auto_create_indices` `initialize()` creates those that are
    missing, without it says which are.

    A load is one request, and a second one if messages are asked for, or a turn that is not the last one: a
    message's ID follows from the session's, so both are read as they are at this moment. A commit is three
    requests, none of them a search or a script. None of this grows with the session's length.

    Listings and searches (`find_sessions`, `find_messages` of a user, `search_messages`, `session_stats`) see
    what this adapter has committed before, and what others have within the index's refresh interval (one
    second, unless it was set otherwise).
    """

    supports_search: ClassVar[bool] = True
    supports_rewriting: ClassVar[bool] = True

    def __init__(
        self,
        source: str | OpenSearch,
        *,
        indices: Mapping[str, str] | None = None,
        auto_create_indices: bool = True,
        pool_size: int = 16,
    ) -> None:
        self._client = Client(source, pool_size)
        self._indices = Indices.named(indices)
        self._auto_create = auto_create_indices

    def initialize(self) -> None:
        """Create the indices that are missing, and add the fields that are; raises `ConfigurationError`.

        Without `auto_create_indices` it raises for what is missing; in either case for fields that are mapped
        in another way.
        """
        faults = []
        found = self._mappings()
        for kind, properties in MAPPINGS.items():
            name = getattr(self._indices, kind)
            mapping = {"dynamic": False, "properties": properties}
            if found[name] is None and self._auto_create:
                self._create(name, mapping)
                found[name] = self._mappings()[name]
            there = found[name]
            if there is None:
                faults.append(f"the index {name} is missing")
                continue
            wrong = [field for field, how in properties.items() if not _is_mapped(there, field, how)]
            absent = [field for field in wrong if field not in there]
            if absent == wrong and wrong and self._auto_create:
                self._client.request("PUT", f"/{name}/_mapping", mapping)
            elif wrong:
                faults.append(f"{name} does not map {', '.join(wrong)} as it must")
        if faults:
            raise ConfigurationError(f"the indices are not as they must be: {'; '.join(faults)}")

    def close(self) -> None:
        """See `PersistenceAdapter.close`."""
        self._client.close()

    def ping(self) -> None:
        """See `PersistenceAdapter.ping`."""
        self._client.request("GET", "/")

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        """See `PersistenceAdapter.load`; the class says how many requests it takes."""
        rows.check_load(session_id, last_messages, turn_id)
        for _ in range(_TRIES):
            session = self._session(session_id)
            if session is None:
                return None
            count = session.source["message_count"]
            key = None if turn_id is None else rows.turn_key(turn_id)
            turn = None if key is None else known_turn(session, None, key)
            others = [] if turn is not None or key is None else [self._indices.turn(session_id, key)]
            found = self._messages(session, range(max(1, count - last_messages + 1), count + 1), others)
            if found is None:
                continue
            messages, turns = found
            if turns and key is not None:
                turn = known_turn(session, turns[0], key)
            return Loaded(
                session_from(session.source),
                messages,
                turn_from(turn, turn_id) if turn is not None and turn_id is not None else None,
            )
        raise _missing(session_id)

    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        """See `PersistenceAdapter.commit`; the protocol is in `inturn.persistence.opensearch.committing`."""
        return Attempt(self._client, self._indices, session, messages, expected_version, turn).run()

    def find_sessions(self, query: SessionQuery) -> Page[SessionState]:
        """See `PersistenceAdapter.find_sessions`."""
        return searching.find_sessions(self._client, self._indices, query)

    def find_messages(self, query: MessageQuery) -> Page[Message]:
        """See `PersistenceAdapter.find_messages`; those of a session are read without a search."""
        rows.check_message_query(query)
        if query.session_id is None:
            return searching.find_messages_of_user(self._client, self._indices, query)
        kind = f"messages of a session, {query.order} first"
        (last,) = (None,) if query.cursor is None else rows.decode_cursor(query.cursor, kind, int)
        newest = query.order == "newest"
        for _ in range(_TRIES):
            session = self._session(query.session_id)
            if session is None:
                return Page([])
            bounds = [query.after, None if newest else last], [query.before, last if newest else None]
            low = max((each for each in bounds[0] if each is not None), default=0)
            high = min(each for each in (*bounds[1], session.source["message_count"] + 1) if each is not None)
            matching = range(max(low, 0) + 1, high)
            page = matching[-query.limit :] if newest else matching[: query.limit]
            found = self._messages(session, page)
            if found is not None:
                items = found[0][::-1] if newest else found[0]
                more = len(matching) > query.limit
                return Page(items, rows.encode_cursor(kind, items[-1].sequence) if more else None)
        raise _missing(query.session_id)

    def find_turns(self, session_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[TurnRecord]:
        """See `PersistenceAdapter.find_turns`."""
        return rewriting.find_turns(self._client, self._indices, session_id, cursor, limit)

    def rewrite(
        self,
        session: SessionState | None = None,
        messages: Sequence[Message] = (),
        turns: Sequence[TurnRecord] = (),
    ) -> int:
        """See `PersistenceAdapter.rewrite`; how is in `inturn.persistence.opensearch.rewriting`."""
        return rewriting.rewrite(self._client, self._indices, session, messages, turns)

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`; also finishes what a call that was killed has begun."""
        rows.check_targets(targets)
        return burying.delete(self._client, self._indices, targets)

    def search_messages(
        self,
        text: str,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page[Message]:
        """Find committed messages with all words of `text` in their content, newest first.

        Capitals and punctuation make no difference, and no character has a meaning of its own; the words may
        stand in any order. Only messages of the user and of the session, if they are given. Raises
        `InvalidInputError` for an empty text, and for one of more than 1,000 characters.
        """
        return searching.search_messages(
            self._client,
            self._indices,
            text,
            user_id=user_id,
            session_id=session_id,
            limit=limit,
            cursor=cursor,
        )

    def session_stats(self) -> SessionStats:
        """Count all sessions: by status, agent, current route and day, and their messages."""
        return searching.session_stats(self._client, self._indices)

    def _session(self, session_id: str) -> Document | None:
        return live(self._client.get([self._indices.session(session_id)])[0])

    def _messages(
        self, session: Document, sequences: range, others: Sequence[Place] = ()
    ) -> tuple[list[Message], list[Document | None]] | None:
        """Read the messages of a session, and other documents with them.

        None: messages are missing, as the session was deleted after it was read.
        """
        session_id = session.source["id"]
        places = [self._indices.message(session_id, sequence) for sequence in sequences]
        found = self._client.get([*places, *others]) if places or others else []
        messages = []
        for document in found[: len(places)]:
            if document is None or not is_committed(document, session):
                return None
            messages.append(message_from(document.source))
        return messages, found[len(places) :]

    def _mappings(self) -> dict[str, dict[str, Any] | None]:
        names = [getattr(self._indices, kind) for kind in MAPPINGS]
        found = self._client.request("GET", f"/{','.join(names)}/_mapping", ignore_unavailable="true")
        return {
            name: found[name]["mappings"].get("properties", {}) if name in found else None for name in names
        }

    def _create(self, name: str, mapping: Mapping[str, Any]) -> None:
        try:
            self._client.request("PUT", f"/{name}", {"mappings": mapping})
        except StoreError:
            # Another process was faster, unless it is still missing.
            if self._mappings()[name] is None:
                raise


def _is_mapped(there: Mapping[str, Any], field: str, how: Mapping[str, Any]) -> bool:
    mapped = there.get(field, {})
    return mapped.get("type") == how["type"] and all(
        mapped.get("fields", {}).get(name, {}).get("type") == sub["type"]
        for name, sub in how.get("fields", {}).items()
    )


def _missing(session_id: str) -> StoreError:
    return StoreError(f"messages of session {session_id!r} are missing: somebody has deleted documents")
