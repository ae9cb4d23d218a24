"""Store: how a commit is all or nothing, and once, where only one document can be changed atomically.

MongoDB has transactions on replica sets and none on a single server. One protocol serves both, and needs
none. A session's document is the truth about it; beside its columns it has

- `mark`, which changes with every write to the document and never comes again: whoever writes names the mark
  that was read (compare-and-swap);
- `life`, made anew when the session is created: nothing of a deleted session belongs to a later one;
- `recent`, the last few commits, each with its `token` and the record of its turn.

A message is first written as a draft, with `draft: {session, token, mark}`: the token of its commit, and the
mark which that commit is going to replace. A draft counts if its token is in `recent`; a message without
`draft` counts. So a commit is

1. read the session's document, and the turn's if it may have one: version, count and turn are checked;
2. insert the messages, as drafts;
3. replace the session's document, if it still has the mark of step 1: new columns, a new mark, the token.

Step 3 is the commit: from then on messages, turn and session count, before it nothing does. Every ninth
commit settles the eight in `recent` before its own step 2: their turns become documents, and their messages
lose `draft`. So a turn reads and writes the same however long its session is. The creation of a session puts
a document without columns in its place first, so that step 3 has a mark to compare with.

A deletion takes the columns out of the document and gives it another mark: from then on there is no session.
Then it removes messages and turns of that life, and last the document, if it is still the same.

What a crash, or a lost connection, leaves behind; what does not count no reader ever sees:

| crash                       | leaves                        | removed by                                  |
| --------------------------- | ----------------------------- | ------------------------------------------- |
| before step 2 of a creation | a document without columns    | the session's creation, or any deletion     |
| in step 2, or before step 3 | drafts that do not count      | a settling, a deletion, or a commit that    |
|                             |                               | has a message of the same ID                |
| after step 3                | nothing: the commit is there  |                                             |
| while settling              | turns that are there twice,   | the next settling                           |
|                             | drafts that count             |                                             |
| while deleting              | a document without columns,   | any deletion, or the session's creation     |
|                             | messages and turns of no life |                                             |

Which drafts may be removed: one that does not count, and whose mark is its session's no more, never will.
One whose mark is its session's may be that of a writer at work, or of one that died a moment ago. It is in
nobody's way, unless a message of the same ID is to be written. Then the session's mark is changed, so that
the draft never counts; a writer that was at work after all finds its mark gone, and begins again.

Readers read the session's document first, and then messages up to its count. If some of these are missing,
the session was deleted meanwhile, and they begin again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from bson import ObjectId
from bson.errors import BSONError
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from inturn.errors import InvalidInputError
from inturn.persistence import rows
from inturn.persistence.adapter import Target
from inturn.persistence.mongo.clients import duplicates_only, is_too_large
from inturn.persistence.mongo.documents import (
    MESSAGE_INDEXES,
    SESSION_INDEXES,
    TURN_INDEXES,
    Collections,
    Document,
    Head,
    commit_entry,
    message_document,
    session_document,
    turn_document,
)

_RECENT = 8
"""How many commits a session's document holds before they are settled."""
_RECENT_BYTES = 2**16
"""How many characters the results of their turns may have by then."""
_BATCH = 1000
_CONTENT = dict.fromkeys((*(column for column in rows.SESSION_COLUMNS if column != "id"), "recent"), "")

T = TypeVar("T")


class Store:
    """The three collections of one database."""

    def __init__(self, database: Database[Document], names: Collections) -> None:
        self.database = database
        self.sessions = database[names.sessions]
        self.messages = database[names.messages]
        self.turns = database[names.turns]

    def create_indexes(self) -> None:
        """Create the indexes that are missing."""
        self.sessions.create_indexes(list(SESSION_INDEXES))
        self.messages.create_indexes(list(MESSAGE_INDEXES))
        self.turns.create_indexes(list(TURN_INDEXES))

    # Reading

    def head(self, session_id: str, *, without: Iterable[str] = ()) -> Head:
        """Read a session's document; the columns `without` are left out."""
        found = self.sessions.find_one({"_id": session_id}, dict.fromkeys(without, False) or None)
        return Head(session_id) if found is None else Head.of(found)

    def turn(self, head: Head, turn_id: str) -> Document | None:
        """Read the record of a turn that was committed when the session was `head`."""
        for commit in head.recent:
            if commit.get("turn", {}).get("turn_id") == turn_id:
                found: Document = commit["turn"]
                return found
        if head.row is None:
            return None
        settled = self.turns.find_one({"life": head.life, "turn_id": turn_id})
        return settled if settled is not None and settled["version"] <= head.row["version"] else None

    def window(self, head: Head, first: int, last: int) -> list[Document] | None:
        """Read a session's messages from sequence `first` to `last`; None if it was deleted meanwhile."""
        if first > last:
            return []
        # What counts is told here and not by the server, whose search then stays within the index.
        found = self.messages.find({"life": head.life, "sequence": {"$gte": first, "$lte": last}})
        messages = sorted(filter(head.has, found), key=lambda message: message["sequence"])
        return messages if len(messages) == last - first + 1 else None

    def committed(self, found: Sequence[Document]) -> list[Document]:
        """Of messages of any sessions, those that count."""
        found = [message for message in found if "life" in message]  # the others are somebody else's
        heads = self._heads({message["session_id"] for message in found})
        counts = {message["_id"] for message in found if heads[message["session_id"]].has(message)}
        # A commit may have been settled between the reading of the message and that of its session.
        unsure = [
            message["_id"] for message in found if message.get("draft") and message["_id"] not in counts
        ]
        if unsure:
            again = self.messages.find({"_id": {"$in": unsure}})
            counts |= {
                each["_id"] for each in again if not each.get("draft") and heads[each["session_id"]].has(each)
            }
        return [message for message in found if message["_id"] in counts]

    def turns_after(self, head: Head, after: str, limit: int) -> list[Document]:
        """Read records of a session's turns, in the order of their IDs."""
        if head.row is None:
            return []
        settled = self.turns.find({"life": head.life, "turn_id": {"$gt": after}}).sort("turn_id").limit(limit)
        found = {turn["turn_id"]: turn for turn in settled if turn["version"] <= head.row["version"]}
        recent = (commit["turn"] for commit in head.recent if "turn" in commit)
        found |= {turn["turn_id"]: turn for turn in recent if turn["turn_id"] > after}
        return [found[turn_id] for turn_id in sorted(found)][:limit]

    # Rewriting: as any other write it gives the session's document a new mark, so a commit that read it
    # before begins again, and cannot bring back what it read.

    def rewrite_session(self, row: rows.Row) -> bool:
        """Put other content into a session's document, if it has the version of `row`."""
        columns = {name: row[name] for name in rows.REWRITTEN_OF_A_SESSION}
        updated = self.sessions.update_one(
            {"_id": row["id"], "version": row["version"]}, {"$set": {**columns, "mark": ObjectId()}}
        )
        return bool(updated.matched_count)

    def rewrite_message(self, row: rows.Row) -> bool:
        """Put other content into a message's document."""
        columns = {name: row[name] for name in rows.REWRITTEN_OF_A_MESSAGE}
        updated = self.messages.update_one(
            {"_id": row["id"], "session_id": row["session_id"]}, {"$set": columns}
        )
        return bool(updated.matched_count)

    def rewrite_turn(self, head: Head, row: rows.Row) -> bool:
        """Put another result into a turn's record, wherever it stands."""
        recent = self.sessions.update_one(
            {"_id": head.session_id, "recent.turn.turn_id": row["turn_id"]},
            {"$set": {"recent.$.turn.result": row["result"], "mark": ObjectId()}},
        )
        # In both places while it is being settled, which may have happened just now.
        settled = self.turns.update_one(
            {"life": head.life, "turn_id": row["turn_id"]}, {"$set": {"result": row["result"]}}
        )
        return bool(recent.matched_count or settled.matched_count)

    # Committing

    def try_commit(
        self, head: Head, token: ObjectId, row: rows.Row, messages: Sequence[rows.Row], turn: rows.Row | None
    ) -> bool:
        """Write a commit over `head`; False: it was not written, and `head` is to be read again.

        Raises `InvalidInputError` for a message whose ID is taken. After an error of the connection `token`
        in a later `recent` tells that the commit was written.
        """
        if head.mark is None:
            head = self._marked(head)
        elif head.row is None and head.life is not None:
            self._wipe([head.life])
        recent = () if _is_full(head) else head.recent
        if _is_full(head):
            self._settle(head)
        document = session_document(row, head, commit_entry(token, row["version"], turn), recent)
        try:
            if self._draft(
                [message_document(message, head, token) for message in messages], head, token
            ) and (
                self.sessions.replace_one({"_id": head.session_id, "mark": head.mark}, document).matched_count
            ):
                return True
        except InvalidInputError:
            self._withdraw(head, token)
            raise
        except (PyMongoError, BSONError) as error:
            if is_too_large(error):
                self._withdraw(head, token)
            raise
        now = self._heads([head.session_id])[head.session_id]
        if token in now.tokens:  # a server that does not know a repeated write has done it twice
            return True
        self._withdraw(head, token)
        if head.life is not None and now.life != head.life:
            self._wipe([head.life])  # what was settled under a deletion
        return False

    def _marked(self, head: Head) -> Head:
        """Mark the place of a session that is going to be created."""
        document = {"_id": head.session_id, "mark": ObjectId(), "empty": True}
        with suppress(DuplicateKeyError):  # somebody else has: then this commit fails, and is tried again
            self.sessions.insert_one(document)
        return Head.of(document)

    def _draft(self, documents: Sequence[Document], head: Head, token: ObjectId) -> bool:
        """Insert drafts; False: some were in the way, and are not any more."""
        try:
            if documents:
                self.messages.insert_many(documents, ordered=False)
            return True
        except BulkWriteError as error:
            if not duplicates_only(error):
                raise
        self._make_room([document["_id"] for document in documents], head, token)
        return False

    def _make_room(self, ids: Sequence[str], head: Head, token: ObjectId) -> None:
        """Remove what has these IDs and does not count; raises `InvalidInputError` for what does."""
        found = self.messages.find({"_id": {"$in": ids}}, {"session_id": 1, "life": 1, "draft": 1})
        others = [message for message in found if message.get("draft", {}).get("token") != token]
        if self.committed(others):
            raise rows.taken_message_id()
        drafts = [message["draft"] for message in others if message.get("draft")]
        if any(draft["session"] == head.session_id and draft["mark"] == head.mark for draft in drafts):
            self.sessions.update_one(
                {"_id": head.session_id, "mark": head.mark}, {"$set": {"mark": ObjectId()}}
            )
        self._wipe([message["life"] for message in others if not message.get("draft")])
        self._sweep({message["session_id"] for message in others})
        if self.messages.find_one({"_id": {"$in": ids}, "session_id": {"$ne": head.session_id}}):
            raise rows.taken_message_id()  # another session's commit is writing it this very moment

    def _settle(self, head: Head) -> None:
        """Make the commits that a session's document holds independent of it."""
        if turns := [turn_document(commit["turn"], head) for commit in head.recent if "turn" in commit]:
            try:
                self.turns.insert_many(turns, ordered=False)
            except (
                BulkWriteError
            ) as error:  # they are there already: somebody else settles, or has not come to an end
                if not duplicates_only(error):
                    raise
        self.messages.update_many(
            {"draft.session": head.session_id, "draft.token": {"$in": head.tokens}}, {"$unset": {"draft": ""}}
        )
        self._sweep([head.session_id])

    def _sweep(self, session_ids: Iterable[str]) -> None:
        """Remove the drafts of these sessions that can never be committed."""
        ids = list(session_ids)
        drafts = [
            message["draft"] for message in self.messages.find({"draft.session": {"$in": ids}}, {"draft": 1})
        ]
        if not drafts:
            return
        heads = self._heads(ids)  # read after the drafts, so that no mark among these is newer
        dead = {
            draft["token"]
            for draft in drafts
            if draft["mark"] != heads[draft["session"]].mark
            and draft["token"] not in heads[draft["session"]].tokens
        }
        if dead:
            self.messages.delete_many({"draft.session": {"$in": ids}, "draft.token": {"$in": list(dead)}})

    def _withdraw(self, head: Head, token: ObjectId) -> None:
        """Remove the drafts of a commit that has not been, and will not be."""
        self.messages.delete_many({"draft.session": head.session_id, "draft.token": token})

    # Deleting

    def empty(self, targets: Sequence[Target]) -> Iterator[str]:
        """Take the columns out of sessions; gives the ID of each that had some."""
        for some in batched(targets):
            ids = [session_id for session_id, _ in some]
            there = {
                document["_id"]
                for document in self.sessions.find(
                    {"_id": {"$in": ids}, "version": {"$exists": True}}, {"_id": 1}
                )
            }
            for session_id, version in some:
                # One by one: the counts of a bulk write do not tell which of them were changed.
                if session_id in there and self._empty(session_id, version):
                    yield session_id

    def _empty(self, session_id: str, version: int | None) -> bool:
        updated = self.sessions.update_one(
            {"_id": session_id, "version": {"$exists": True} if version is None else version},
            {"$set": {"mark": ObjectId(), "empty": True}, "$unset": _CONTENT},
        )
        return bool(updated.matched_count)

    def remove_empty(self) -> None:
        """Remove what is left of sessions that were deleted, by whomever, or never created."""
        found = list(self.sessions.find({"empty": True}, {"life": 1}))
        for some in batched(found):
            ids = [document["_id"] for document in some]
            mark = ObjectId()
            self.sessions.update_many({"_id": {"$in": ids}, "empty": True}, {"$set": {"mark": mark}})
            self._sweep(ids)
            self._wipe([document["life"] for document in some if "life" in document])
            self.sessions.delete_many({"_id": {"$in": ids}, "mark": mark})

    def _wipe(self, lives: Sequence[ObjectId]) -> None:
        """Remove the messages and turns of lives that are over."""
        if lives:
            self.messages.delete_many({"life": {"$in": list(lives)}})
            self.turns.delete_many({"life": {"$in": list(lives)}})

    def _heads(self, session_ids: Iterable[str]) -> dict[str, Head]:
        ids = list(session_ids)
        found = self.sessions.find(
            {"_id": {"$in": ids}}, {"mark": 1, "life": 1, "version": 1, "recent.token": 1}
        )
        return {id: Head(id) for id in ids} | {document["_id"]: Head.of(document) for document in found}


def _is_full(head: Head) -> bool:
    """Tell whether a session's document holds as many commits as it may."""
    results = sum(len(commit["turn"]["result"]) for commit in head.recent if "turn" in commit)
    return len(head.recent) >= _RECENT or results > _RECENT_BYTES


def batched(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items, in pieces that fit into one call."""
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))
