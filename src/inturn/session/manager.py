"""SessionManager: the session at hand, its history and its data, kept in step with the store."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from inturn.errors import InvalidInputError, SessionConflictError, SessionError
from inturn.ids import check_id, create_message_id
from inturn.persistence.adapter import Committed, PersistenceAdapter
from inturn.persistence.conflicts import TRIES, repeat_on_conflict
from inturn.persistence.manager import PersistenceManager
from inturn.persistence.memory import MemoryAdapter
from inturn.persistence.rows import message_row
from inturn.session.state import (
    MERGED_INTO,
    HistoryItem,
    Message,
    SessionState,
    TurnRecord,
    create_message,
    create_messages,
    create_session,
    utcnow,
)
from inturn.session.working import WorkingCopy, with_notes
from inturn.values import to_json

Validate = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Checks a patch of the data: returns what is to be merged in its place, or raises."""


class SessionManager:
    """One session at a time: loads or creates it, changes it, and saves each change at once.

    - `persistence` is a `PersistenceManager`, or an adapter or a URL to make one of. Without it sessions
      live in this manager and end with it.
    - `session_id` is the session to load or create; `user_id` and `agent_name` go into what is created.
    - `validate` checks each patch of `set_data`.

    A load error is raised, never taken for a new session. A failed save is raised too and leaves the change
    in memory: `save()` tries again. With `auto_save` off in the persistence manager every change stays in
    memory until `save()`.

    Other processes may change the same session. `add_message`, `set_data`, `set_history` and
    `clear_history` are then applied again to what the others left. Edits made on `.current` itself cannot
    be: `SessionConflictError` is raised, and the next call that needs the session loads it anew.

    During a turn (from `load` to `commit` or `rollback`) nothing is saved by itself: what tools and hooks
    change through this manager is committed with the turn, or undone with it. Threads that share a manager
    wait for each other's calls; a turn belongs to one thread.
    """

    def __init__(
        self,
        persistence: PersistenceManager | PersistenceAdapter | str | None = None,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        agent_name: str | None = None,
        validate: Validate | None = None,
    ) -> None:
        self._persistent = persistence is not None
        if not isinstance(persistence, PersistenceManager):
            persistence = PersistenceManager(MemoryAdapter() if persistence is None else persistence)
        self._persistence = persistence
        self._id = None if session_id is None else check_id(session_id)
        self._user_id = user_id
        self._agent_name = agent_name
        self._validate = validate
        self._lock = threading.RLock()
        self._held: WorkingCopy | None = None
        self._stale = False  # others changed the session: it is read again before its next use
        self._before: WorkingCopy | None = None  # what a rollback restores; set during a turn

    @property
    def id(self) -> str | None:
        """The session's ID; None before the first call that makes one."""
        return self._id

    @property
    def current(self) -> SessionState | None:
        """The whole state of the session at hand; None until it is loaded or created."""
        return None if self._held is None else self._held.session

    def get_persistence_manager(self) -> PersistenceManager | None:
        """The persistence manager; None for a manager without persistence."""
        return self._persistence if self._persistent else None

    # The seed's operations

    def get_or_create(self, id: str | None = None) -> SessionState:
        """Return the session `id`, else the one at hand, else a new one with an ID of its own.

        The session at hand is returned as it is unless it is known to be out of date. Another one is
        loaded, or else created and saved; what was not saved of the one at hand is then forgotten.
        """
        with self._lock:
            if id is not None and check_id(id) != self._id:
                self._refuse_in_turn("another session cannot be loaded")
                self._id, self._held = id, None
            held = self._ready()
            if held.session.version == 0 and self._saves_at_once():
                try:
                    self._save(held)
                except SessionConflictError:
                    if held.has_changes():
                        raise
                    held = self._ready()  # somebody created it first: it is the same session
            return held.session

    def add_message(self, role: str, content: str, name: str | None = None) -> None:
        """Append a message to the history: one row more, no other is touched."""
        with self._lock:
            session = self._ready().session
            message = create_message(
                session.id,
                role,
                content,
                name=name,
                user_id=self._user_id or session.user_id,
                route=session.current_route and session.current_route.id,
                step=session.current_step and session.current_step.id,
            )
            message_row(message)  # what no store can keep is refused now: later it would block every save
            self._apply(lambda held: held.append([message]))

    def get_history(self) -> list[HistoryItem]:
        """The last lines of the conversation, oldest first: at most `history_window` of them."""
        with self._lock:
            return [] if self._id is None else list(self._ready().session.history)

    def set_history(self, history: Iterable[HistoryItem | Mapping[str, Any]]) -> None:
        """Start the conversation anew with these lines: `clear_history`, then append them."""
        with self._lock:
            messages = create_messages(self._ready().session, history)
            for message in messages:
                message_row(message)

            def change(held: WorkingCopy) -> None:
                held.clear_history()
                held.append(messages)

            self._apply(change)

    def clear_history(self) -> None:
        """Start the conversation anew: what was said is no longer part of it.

        The messages stay in the store, for the record; `delete()` removes them.
        """
        with self._lock:
            self._ready()
            self._apply(WorkingCopy.clear_history)

    def get_data(self) -> dict[str, Any]:
        """A copy of the collected data; {} if there is no session yet."""
        with self._lock:
            return {} if self._id is None else copy.deepcopy(self._ready().session.data)

    def set_data(self, patch: Mapping[str, Any] | None) -> None:
        """Merge `patch` into the collected data; None changes nothing.

        Values stay as they are in memory and become JSON in the store: a date is text once reloaded. Raises
        `InvalidInputError` for what no store can keep, and whatever `validate` raises.
        """
        if patch is None:
            return
        if not isinstance(patch, Mapping):
            raise InvalidInputError(f"data must be a mapping, not {type(patch).__name__}")
        checked = copy.deepcopy(dict(patch))
        if self._validate is not None:
            checked = dict(self._validate(checked))
        to_json(checked, "data")
        with self._lock:
            self._ready()
            self._apply(lambda held: held.session.data.update(checked))

    def save(self) -> None:
        """Save what is not saved yet: without changes nothing, during a turn nothing before its end."""
        with self._lock:
            held = self._held
            if held is None or self._before is not None:
                return
            if held.session.version == 0 or held.has_changes():
                self._save(held)

    def delete(self) -> bool:
        """Delete the session with its messages, in the store and in memory; False if there was none stored.

        The next call that needs a session begins a new one under the same ID.
        """
        with self._lock:
            self._refuse_in_turn("the session cannot be deleted")
            deleted = self._id is not None and self._persistence.delete_session(self._id)
            self._held = None
            return deleted

    def reset(self, preserve_history: bool = False) -> SessionState:
        """Replace the session by a new one without data, with the same conversation if that is preserved.

        The new session is saved first, and is the manager's from then on; only then the old one is deleted,
        unless somebody has written to it meanwhile. A crash in between leaves both, never neither.
        """
        with self._lock:
            self._refuse_in_turn("the session cannot be reset")
            old = None if self._id is None else self._ready()
            stored = None if old is None else self._persistence.find_session_by_id(old.session.id)
            new = create_session(
                user_id=self._user_id if old is None else old.session.user_id,
                agent_name=self._agent_name if old is None else old.session.agent_name,
            )
            messages = self._conversation(old) if old is not None and preserve_history else []
            copies = [
                message.model_copy(
                    update={"id": create_message_id(), "session_id": new.id, "turn_id": None, "sequence": 0}
                )
                for message in messages
            ]
            new.adopt(self._persistence.commit(new, copies).session)
            self._id = new.id
            self._hold(new).show(copies)
            if stored is not None:
                self._persistence.delete_session(stored.id, expected_version=stored.version)
            return new

    # What the agent's turn engine uses

    def load(self, *, turn_id: str | None = None) -> TurnRecord | None:
        """Begin a turn: read the session anew, in one round trip; a new one is made in memory only.

        Edit `.current` in place (but not its `history`), then `commit`; if the turn fails, `rollback`.
        Returns the record of a turn that was committed before: then no turn begins. A turn that is still
        open is rolled back first. What could not be saved before, or waits for `save()`, is not read over.
        """
        with self._lock:
            self.rollback()
            if self._held is None or self._stale or not self._held.has_changes():
                record = self._read(turn_id)
                if record is not None:
                    return record
            self._before = self._ready().snapshot()
            return None

    @property
    def length(self) -> int:
        """How many messages the session has, those included that are not saved yet."""
        with self._lock:
            held = self._ready()
            return held.session.message_count + len(held.unsaved)

    def checkpoint(self, turn_id: str, notes: Mapping[str, Any], *, keep: bool = False) -> None:
        """Save the turn's journal now, and nothing else of the turn: a rollback leaves it as it is.

        `SessionConflictError` if somebody has spoken meanwhile, or has written to this journal: then the turn
        is perhaps somebody else's, and what the notes were to announce must not be done. With `keep` they
        tell what was done since they were last saved: they are saved all the same, if nobody else has
        changed them, before the conflict is raised.
        """
        with self._lock:
            before = self._before
            if before is None:
                raise SessionError("no turn has begun: call load() before checkpoint()")
            noted: dict[str, Any] = json.loads(to_json(dict(notes), "journal"))  # as it is once reloaded
            former = before.session.journal
            before.session.journal = with_notes(former, turn_id, noted)
            if self._persistence.auto_save:
                try:
                    committed = self._commit(before, before.unsaved, None)
                except BaseException as error:
                    # Whether it was written is for the store to say.
                    before.session.journal = former
                    self._stale = self._stale or not before.unsaved
                    if keep and isinstance(error, SessionConflictError):
                        self._keep(turn_id, former.get(turn_id), noted)
                    raise
                before.saved(committed.session)
                self._ready().follow(before)
            self._ready().session.journal = copy.deepcopy(before.session.journal)

    def commit(
        self, messages: Sequence[Message] = (), turn: TurnRecord | None = None, merged: Sequence[str] = ()
    ) -> Committed:
        """End the turn: save `.current`, append `messages` and remember the turn, all of it or nothing.

        Messages that were added during the turn come before `messages`. If others changed the session
        meanwhile without saying anything (its status, its data), the turn's changes are applied to what
        they left; if they said something, `SessionConflictError` is raised and the turn is to be taken
        again. A turn that was committed before changes nothing: `.current` is read anew, and the result has
        `repeated` set. Whatever is raised, the turn is rolled back. With `auto_save` off it all stays in
        memory until `save()`, where no turn is remembered. `merged` are the IDs of turns whose messages are
        among `messages`: the journal tells of them until `note_merged` has given each a record of its own.
        """
        with self._lock:
            held = self._ready()
            if self._before is None:
                raise SessionError("no turn has begun: call load() before commit()")
            if not self._persistence.auto_save:
                held.append(messages)
                self._before = None
                return Committed(held.session, list(messages), turn)
            if turn is not None:
                note = {"at": utcnow().isoformat(), MERGED_INTO: turn.turn_id}
                held.session.journal |= dict.fromkeys(merged, note)
            try:
                committed = self._commit(held, [*held.unsaved, *messages], turn)
            except BaseException:
                self.rollback()
                raise
            self._before = None
            if committed.repeated:
                self._stale = True
            else:
                self._note(held, committed)
                held.show(messages)
                self._persistence.keep(held.session)
            return committed._replace(session=self._ready().session)

    def known(self, turn_ids: Sequence[str]) -> set[str]:
        """Which of these turns were committed before, alone or as part of another."""
        with self._lock:
            session = self._ready().session
            return (
                session.merged.keys() & set(turn_ids)
                | self._persistence.find_turns(session.id, turn_ids).keys()
            )

    def note_merged(self) -> bool:
        """Have the turns that were committed as part of another known under their own IDs; True: there were.

        Safe to repeat: until it is done, the session at hand says which they are.
        """
        with self._lock:
            if self._held is None or not self._held.session.merged:
                return False
            self._stale = True
            self._persistence.note_merged(self._held.session.id)
            return True

    def rollback(self) -> None:
        """End the turn by undoing it: in memory all is as it was at `load`. Without a turn: nothing."""
        with self._lock:
            if self._before is not None:
                self._held, self._before = self._before, None

    # What these are made of

    def _ready(self) -> WorkingCopy:
        """The session at hand, read or made in memory if need be."""
        if self._held is None or (self._stale and self._before is None):
            self._read()
        assert self._held is not None
        return self._held

    def _read(self, turn_id: str | None = None) -> TurnRecord | None:
        if self._id is not None and turn_id is not None:
            kept = self._persistence.take_kept(self._id, turn_id)
            if kept is not None:
                self._hold(kept)
                return None
        loaded = None if self._id is None else self._persistence.load(self._id, turn_id=turn_id)
        if loaded is not None:
            self._hold(loaded.session)
            return loaded.turn
        session = create_session(self._id, user_id=self._user_id, agent_name=self._agent_name)
        self._id = session.id
        self._hold(session)
        return None

    def _hold(self, session: SessionState) -> WorkingCopy:
        self._held = WorkingCopy(session, window=self._persistence.history_window)
        self._stale = False
        return self._held

    def _apply(self, change: Callable[[WorkingCopy], None]) -> None:
        """Change the session at hand; save it, unless that waits, again and again while others write."""

        def attempt() -> None:
            held = self._ready()
            change(held)
            self._save(held)

        held = self._ready()
        if not self._saves_at_once():
            change(held)
        elif held.has_changes():
            attempt()  # earlier changes belong to this very state: a conflict is for the caller to solve
        else:
            repeat_on_conflict(attempt)

    def _save(self, held: WorkingCopy) -> None:
        try:
            committed = self._persistence.commit(held.session, held.unsaved)
        except SessionConflictError:
            self._stale = True
            raise
        self._note(held, committed)

    def _commit(
        self, held: WorkingCopy, messages: Sequence[Message], turn: TurnRecord | None, tries: int = TRIES
    ) -> Committed:
        try:
            return self._persistence.commit(held.session, messages, turn=turn)
        except SessionConflictError:
            self._stale = True
            found = self._persistence.find_session_by_id(held.session.id)
            if tries == 1 or found is None or not held.rebase(found):
                raise
        return self._commit(held, messages, turn, tries - 1)

    def _keep(self, turn_id: str, former: dict[str, Any] | None, notes: dict[str, Any]) -> None:
        def write() -> None:
            found = None if self._id is None else self._persistence.find_session_by_id(self._id)
            if found is not None and found.journal.get(turn_id) == former:
                found.journal = with_notes(found.journal, turn_id, notes)
                self._persistence.commit(found)

        repeat_on_conflict(write)

    def _note(self, held: WorkingCopy, committed: Committed) -> None:
        held.saved(committed.session)
        self._stale = False

    def _saves_at_once(self) -> bool:
        return self._persistence.auto_save and self._before is None

    def _conversation(self, held: WorkingCopy) -> list[Message]:
        stored = self._persistence.find_messages_by_session_id(held.session.id, limit=None)
        return [*stored, *held.unsaved][held.session.history_start :]

    def _refuse_in_turn(self, what: str) -> None:
        if self._before is not None:
            raise SessionError(f"{what} during a turn; do it when respond() has returned")
