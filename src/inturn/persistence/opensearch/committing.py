"""A commit in a store without transactions: how several documents become one step.

The documents. A session is one document, and its compare-and-swap is the commit: everything else is made so
that this one write decides. Its `phase` is

- `new`: somebody is about to create the session; for readers there is none;
- `live`: there is a session;
- `dead`: it was deleted, and its messages and turns are being removed; for readers there is none.

Its `incarnation` is a random name for this life of the session ID. The message with the sequence n is the
document `session:n`. **A message is committed if its incarnation is the session's and its sequence is at
most the session's `message_count`; from then on nothing of its document changes but what was said in it (see
`rewriting`).** All others are reserved places
and nobody sees them. So a reader who has the session knows the IDs of its messages and reads them by ID, as
they are at this moment, without a search. A second document, `message:<message ID>`, says who has a message
ID. The record of the last turn is part of the session's document, and so as atomic as that; the next commit
first copies it to a document of its own, `turn:session:<turn ID>`, which is a fact when it is written.

A commit is three requests:

1. *look*: read the session and the turn's document. Another version: `SessionConflictError`. The turn is
   there: it is answered. (A new session costs one more: the document in phase `new`.)
2. *reserve*: create, and only create, the documents of the messages and of their IDs, and copy the turn of
   the commit before.
3. *swap*: write the session over exactly the document that was read (`if_seq_no`, `if_primary_term`).

If a place is taken already, its owner is dead or about to swap. We wait a moment and look again. If nothing
has changed, we write the session's document anew as it is, which makes the owner's swap fail should it ever
come (the *fence*), replace what it had reserved, each document only if it is still the one we saw before the
fence, and go on. Whoever fenced last and replaced everything is the only one who can swap: an owner that was
replaced was fenced before, and nobody can replace ours without fencing us.

What a crash leaves, by the last request that was carried out:

| request | left behind | what becomes of it |
| --- | --- | --- |
| new | a session in phase `new` | invisible; the next to create it goes on from there |
| reserve | messages above the count, message IDs | invisible; replaced by whoever needs the places |
| fence | the same | the same |
| swap | nothing: it is committed | the turn's record is in the session until it is copied |
| phase `dead` | messages, turns | invisible; removed by the next deletion of any session |

Deleting a session removes what was reserved for it as well, but for the places that a writer reserved after
that, and could not take back because it was killed. They stay, invisible, until the session ID is used again.

A swap whose answer was lost is recognised by its `attempt`, a random name: in the session's document, or,
when others have committed since, in the turn's or in the first message.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import Sequence
from typing import Any

from inturn.errors import InvalidInputError, SessionConflictError, StoreError, StoreUnavailableError
from inturn.persistence import rows
from inturn.persistence.adapter import Committed
from inturn.persistence.opensearch.burying import bury
from inturn.persistence.opensearch.client import Client, Document, Place, Position, Write
from inturn.persistence.opensearch.indices import (
    Indices,
    exact_time,
    message_source,
    session_source,
    turn_from,
)
from inturn.session.state import Message, SessionState, TurnRecord, utcnow

ROUNDS = 100
"""How often a commit looks again before it gives up: each time somebody else came between."""


def live(document: Document | None) -> Document | None:
    """The document of a session, if there is one for readers."""
    return document if document is not None and document.source["phase"] == "live" else None


def known_turn(session: Document, turn: Document | None, turn_key: str) -> dict[str, Any] | None:
    """The record of a turn, if it was committed in the state `session`."""
    last = session.source["last_turn"]
    if last is not None and last["turn_id"] == turn_key:
        return dict(last)
    if turn is None or turn.source["incarnation"] != session.source["incarnation"]:
        return None
    return turn.source if turn.source["version"] <= session.source["version"] else None


class Attempt:
    """One commit, from the first look to the swap."""

    def __init__(
        self,
        client: Client,
        indices: Indices,
        session: SessionState,
        messages: Sequence[Message],
        expected_version: int,
        turn: TurnRecord | None,
    ) -> None:
        self._client = client
        self._indices = indices
        self._session = session
        self._expected_version = expected_version
        self._turn = turn
        self._saved, self._messages = rows.next_commit(session, messages, expected_version, turn)
        self._turn_row = None if turn is None else rows.turn_row(turn)
        self._attempt = secrets.token_hex(8)
        self._reserved: dict[Place, Position] = {}
        self._suspects: dict[Place, Position] = {}
        # What may not be written is refused before anything is.
        session_source(self._saved, turn, incarnation="", attempt="")
        for message in self._messages:
            message_source(message, "", "")

    def run(self) -> Committed:
        """Commit; see `PersistenceAdapter.commit`."""
        if len({message.id for message in self._messages}) < len(self._messages):
            raise rows.taken_message_id()
        for number in range(ROUNDS):
            if number:
                time.sleep(random.uniform(0.5, 1) * min(0.5, 0.05 * number))
            try:
                done = self._round()
            except (SessionConflictError, InvalidInputError):
                if self._has_won():
                    return self._done()
                self._take_back()
                raise
            if done is not None:
                return done
        raise StoreUnavailableError(f"session {self._session.id!r}: other writers never let this one through")

    def _round(self) -> Committed | None:
        """Try once; None: look again."""
        place, turn_places = self._indices.session(self._session.id), []
        if self._turn_row is not None:
            turn_places.append(self._indices.turn(self._session.id, self._turn_row["turn_id"]))
        base, *turns = self._client.get([place, *turn_places])
        stored = live(base)
        if stored is not None:
            if stored.source["attempt"] == self._attempt:
                return self._done()
            if stored.source["version"] != self._expected_version:
                # A turn that was copied after we looked for it, and before we read the session.
                turns = self._client.get(turn_places)
            repeated = self._repeated(stored, turns)
            if repeated is not None:
                return repeated
        rows.check_current(self._session, self._expected_version, stored and stored.source)
        base = self._base(place, base)
        position = None if base is None else self._reserve(base)
        if base is None or position is None:
            return None
        source = session_source(
            self._saved, self._turn, incarnation=base.source["incarnation"], attempt=self._attempt
        )
        (swapped,) = self._client.write([Write("index", place, source, position)])
        return None if swapped is None else self._done()

    def _done(self) -> Committed:
        return Committed(self._saved, self._messages, self._turn)

    def _repeated(self, session: Document, turns: Sequence[Document | None]) -> Committed | None:
        if self._turn is None or self._turn_row is None:
            return None
        record = known_turn(session, turns[0], self._turn_row["turn_id"])
        if record is None:
            return None
        if record["attempt"] == self._attempt:
            return self._done()
        self._take_back()
        return Committed(self._session, [], turn_from(record, self._turn.turn_id), repeated=True)

    def _base(self, place: Place, base: Document | None) -> Document | None:
        """What the swap goes over: the live session, or one in phase `new`."""
        if base is not None and base.source["phase"] == "dead":
            bury(self._client, self._indices, [base])
            return None
        if base is not None:
            return base
        source = {
            "id": self._session.id,
            "phase": "new",
            "incarnation": secrets.token_hex(8),
            "updated_at": exact_time(utcnow()),
        }
        (position,) = self._client.write([Write("create", place, source)])
        return None if position is None else Document(source, position)

    def _reserve(self, base: Document) -> Position | None:
        """Make all places ours; returns what the swap goes over then, None: look again."""
        incarnation = base.source["incarnation"]
        mine = self._mine(incarnation)
        facts = self._facts(base)
        wanted = {**mine, **facts}
        if not wanted:
            return base.position
        done = self._client.write([Write("create", place, source) for place, source in wanted.items()])
        blocked = []
        for place, position in zip(wanted, done, strict=True):
            if position is None:
                blocked.append(place)
            elif place in mine:
                self._reserved[place] = position
        contested, stale = {}, []
        for place, found in zip(blocked, self._client.get(blocked), strict=True):
            if found is None:
                return None
            same = found.source["incarnation"] == incarnation
            if same and found.source["attempt"] == self._attempt:
                self._reserved[place] = found.position
            elif not (same and place in facts):
                contested[place] = found
            elif found.source != facts[place]:
                # It was rewritten after somebody had copied it, and before they could swap.
                stale.append(Write("index", place, facts[place], found.position))
        if stale and None in self._client.write(stale):
            return None
        if not contested:
            return base.position
        others = self._others(contested)
        seen = {place: found.position for place, found in contested.items()}
        if seen != self._suspects:
            self._suspects = seen
            return None
        return self._take_over({place: wanted[place] for place in seen}, seen, base, others)

    def _mine(self, incarnation: str) -> dict[Place, dict[str, Any]]:
        sources = {}
        for message in self._messages:
            source = message_source(message, incarnation, self._attempt)
            sources[self._indices.message(message.session_id, message.sequence)] = source
            kept = ("session_id", "sequence", "incarnation", "attempt")
            sources[self._indices.message_id(message.id)] = {name: source[name] for name in kept} | {
                "message_id": message.id
            }
        return sources

    def _facts(self, base: Document) -> dict[Place, dict[str, Any]]:
        last = base.source.get("last_turn")
        return {} if last is None else {self._indices.turn(last["session_id"], last["turn_id"]): last}

    def _others(self, contested: dict[Place, Document]) -> dict[Place, Document]:
        """Check who has our message IDs: returns the other sessions that may be about to commit one.

        Raises `InvalidInputError` if one is committed.
        """
        owners = [found.source for found in contested.values() if "message_id" in found.source]
        # The session first: a message that was committed then does not change after it.
        sessions = self._client.get([self._indices.session(owner["session_id"]) for owner in owners])
        messages = self._client.get(
            [self._indices.message(owner["session_id"], owner["sequence"]) for owner in owners]
        )
        others = {}
        for owner, session, message in zip(owners, sessions, messages, strict=True):
            if session is None or session.source["phase"] == "dead":
                continue
            theirs = message is not None and message.source["id"] == owner["message_id"]
            if message is not None and theirs and is_committed(message, session):
                raise rows.taken_message_id()
            if owner["session_id"] != self._session.id:
                others[self._indices.session(owner["session_id"])] = session
        return others

    def _take_over(
        self,
        sources: dict[Place, dict[str, Any]],
        seen: dict[Place, Position],
        base: Document,
        others: dict[Place, Document],
    ) -> Position | None:
        """Fence off whoever reserved our places, and replace what they reserved."""
        place = self._indices.session(self._session.id)
        fenced = self._client.write(
            [
                Write("index", each, found.source, found.position)
                for each, found in {**others, place: base}.items()
            ]
        )
        if None in fenced:
            return None
        done = self._client.write(
            [Write("index", each, source, seen[each]) for each, source in sources.items()]
        )
        for each, position in zip(sources, done, strict=True):
            if position is not None and sources[each]["attempt"] == self._attempt:
                self._reserved[each] = position
        return None if None in done else fenced[-1]

    def _has_won(self) -> bool:
        """Tell whether our swap has happened although we were never told: others have committed since."""
        if not self._reserved:
            return False
        (session,) = self._client.get([self._indices.session(self._session.id)])
        (message,) = self._client.get([self._indices.message(self._session.id, self._messages[0].sequence)])
        return (
            session is not None
            and message is not None
            and message.source["attempt"] == self._attempt
            and is_committed(message, session)
        )

    def _take_back(self) -> None:
        """Remove what was reserved and is still ours; if that fails it is a leftover like any other."""
        with contextlib.suppress(StoreError):
            if self._reserved:
                self._client.write(
                    [Write("delete", place, position=position) for place, position in self._reserved.items()]
                )


def is_committed(message: Document, session: Document) -> bool:
    """Tell whether a message is part of the session in this state."""
    return (
        live(session) is not None
        and message.source["incarnation"] == session.source["incarnation"]
        and message.source["sequence"] <= session.source["message_count"]
    )
