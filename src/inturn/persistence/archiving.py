"""ArchivingAdapter: a hot store that answers, and an archive that keeps, searchable, what was said."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from inturn.errors import InturnError, InvalidInputError, SessionConflictError, StoreUnavailableError
from inturn.persistence import rows
from inturn.persistence.adapter import (
    MAX_PAGE,
    Committed,
    Loaded,
    MessageQuery,
    Page,
    PersistenceAdapter,
    SessionQuery,
    Target,
)
from inturn.persistence.conflicts import repeat_on_conflict
from inturn.persistence.wrapping import WrappingAdapter
from inturn.session.state import Message, SessionState, TurnRecord, create_session, utcnow

PROGRESS_ID = "inturn:archive"
"""The session of the archive, and of no hot store, in which `catch_up` notes how far it has come."""

OVERLAP = timedelta(minutes=10)
"""How far back `catch_up` looks again: clocks may differ by this much, and a commit may take this long."""

AWAY_SECONDS = 30.0
"""How long commits leave an archive alone that could not be reached, so that no turn waits for it."""

_BATCH = 200
_log = structlog.get_logger(__name__)


class CaughtUp(NamedTuple):
    """What one call of `catch_up` did.

    `checked` sessions were compared, `copied` of them brought up to date; `failed` could not be, and the log
    names them. `finished` is False if there are more: call again.
    """

    checked: int
    copied: int
    failed: int
    finished: bool


class ArchivingAdapter(WrappingAdapter):
    """The hot store does everything; after each commit the session is copied to the archive.

    Both are adapters, which stay yours to close, or URLs for `open_adapter`. Read and search the archive
    through `archive`; `hot` is the other one.

    Copied is what the session is *now*, whatever was missed before: a copy that a crash or an outage has
    cost is made by the session's next commit, or by `catch_up`, whichever comes first. An archive that is
    away or refuses fails no turn: it is logged as a warning, and for 30 seconds not asked again.

    Equal in both are every field of every message but its sequence, and the session's fields but these:

    - `version` and `updated_at` are the archive's own, for it counts its own commits;
    - `sequence`, `message_count` and `history_start` are equal too, unless an ID is used again after its
      session was deleted from the hot store: then the new session's messages follow the old one's. So do
      those that come after messages which had expired in the hot store before they were copied;
    - turns are not copied: the hot store alone decides whether a turn was committed.

    What is deleted from the hot store stays in the archive, or with `delete_from_archive` goes from both;
    `purge` removes from both in any case. A session that is deleted before its first copy is complete is
    not archived.
    """

    def __init__(
        self,
        hot: PersistenceAdapter | str,
        archive: PersistenceAdapter | str,
        *,
        delete_from_archive: bool = False,
    ) -> None:
        from inturn.persistence.registry import open_adapter  # drivers are loaded for URLs only

        # Searches and rewritings would be of one of the two stores only.
        super().__init__(
            open_adapter(hot) if isinstance(hot, str) else hot,
            supports_search=False,
            supports_rewriting=False,
        )
        self.archive = open_adapter(archive) if isinstance(archive, str) else archive
        self._owned = [
            adapter for adapter, given in ((self.hot, hot), (self.archive, archive)) if isinstance(given, str)
        ]
        self._delete_from_archive = delete_from_archive
        self._not_before = 0.0
        self._unprepared = False

    @property
    def hot(self) -> PersistenceAdapter:
        """The hot store."""
        return self.inner

    def initialize(self) -> None:
        """See `PersistenceAdapter.initialize`; an archive that is away is prepared before its first copy."""
        super().initialize()
        self._unprepared = True
        try:
            self._prepare()
        except StoreUnavailableError as error:
            self._put_off(error)

    def close(self) -> None:
        """See `PersistenceAdapter.close`."""
        for adapter in self._owned:
            adapter.close()

    def ping(self) -> None:
        """Ask the hot store; ask the archive with `archive.ping()`."""
        self.hot.ping()

    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        """See `PersistenceAdapter.commit`; it returns after the copy, or the vain try at it."""
        committed = self.hot.commit(session, messages, expected_version=expected_version, turn=turn)
        if time.monotonic() >= self._not_before:
            try:
                self._prepare()
                self._copy(session.id, len(messages))
            except Exception as error:
                # The turn has happened; whatever is wrong with the archive is no reason to say otherwise.
                self._put_off(error, session.id)
        return committed

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        """See `PersistenceAdapter.delete_sessions`.

        With `delete_from_archive` an archive that is away raises, and nothing is deleted.
        """
        if not self._delete_from_archive:
            return self.hot.delete_sessions(targets)
        rows.check_targets(targets)
        # First, so that a crash leaves nothing behind that nobody would ever look for again.
        self.archive.delete_sessions([Target(target.session_id) for target in targets])
        gone = self.hot.delete_sessions(targets)
        # Once more: a commit may have copied in between.
        self.archive.delete_sessions([Target(session_id) for session_id in gone])
        for session_id in {target.session_id for target in targets} - set(gone):
            self._copy(session_id)  # it has changed since it was selected, and lives on
        return gone

    def purge(self, session_ids: Iterable[str]) -> list[str]:
        """Delete sessions from both stores; returns the IDs that were in one of them.

        Once it has returned, nothing of them is left, and no copy that was on its way brings them back. If
        it raises, call it again.
        """
        targets = [Target(session_id) for session_id in dict.fromkeys(session_ids)]
        gone = {*self.hot.delete_sessions(targets), *self.archive.delete_sessions(targets)}
        return [target.session_id for target in targets if target.session_id in gone]

    def catch_up(self, *, limit: int = 1000, from_start: bool = False) -> CaughtUp:
        """Compare up to `limit` sessions of both stores, and copy what the archive lacks.

        Sessions come in the order of their last change, and each call goes on where the last one ended, so
        repeated calls come to an end: `finished`. `from_start` begins with the oldest session again, as is
        right after one of the stores was restored from a backup. Safe to repeat, to race and to interrupt.

        Raises `StoreUnavailableError` if a store is away.
        """
        self._prepare()
        walk = _Progress(self.archive)
        if from_start:
            walk.begin(None)
        checked = copied = failed = 0
        while checked < limit:
            page = self.hot.find_sessions(
                SessionQuery(
                    order="oldest",
                    newer_than=walk.since,
                    cursor=walk.cursor,
                    limit=min(_BATCH, limit - checked),
                    unreadable=True,
                )
            )
            for session in page.items:
                checked += 1
                try:
                    copied += self._copy(session.id, _BATCH)
                except StoreUnavailableError:
                    raise
                except InturnError as error:
                    failed += 1
                    _warn(error, session.id)
            walk.advance(page)
            if page.cursor is None:
                return CaughtUp(checked, copied, failed, finished=True)
        return CaughtUp(checked, copied, failed, finished=False)

    def _prepare(self) -> None:
        if self._unprepared:
            self.archive.initialize()
            self._unprepared = False

    def _put_off(self, error: Exception, session_id: str | None = None) -> None:
        if isinstance(error, StoreUnavailableError):
            self._not_before = time.monotonic() + AWAY_SECONDS
        _warn(error, session_id)

    def _copy(self, session_id: str, newest: int = 0) -> bool:
        """Make the archive's session what the hot store's is; False if it was.

        `newest` is how many of its messages are probably missing.
        """

        def copy() -> bool:
            return repeat_on_conflict(lambda: self._copy_once(session_id, newest))

        try:
            return copy()
        except InvalidInputError:
            # The archive's session may have been deleted and made anew, with the version that we had seen
            # and other messages. If that was not it, the same happens again.
            return copy()

    def _copy_once(self, session_id: str, newest: int) -> bool:
        # The archive first: then what is read of the hot store is no older than what anybody has copied
        # until now, and whoever copies something newer from now on makes our commits a conflict.
        there = self.archive.load(session_id, last_messages=1)
        found = self.hot.load(session_id, last_messages=min(newest + 1, MAX_PAGE))
        if found is None:
            return False
        archived = 0 if there is None else there.session.message_count
        last = there.messages[-1].id if there is not None and there.messages else None
        copied = 0 if last is None else self._sequence_of(last, found)
        base = archived - copied
        state = found.session.model_copy(
            update={
                "version": 0 if there is None else there.session.version,
                "message_count": archived,
                "history_start": max(0, base + found.session.history_start),
            }
        )
        if there is not None and copied == found.session.message_count and _is_same(state, there.session):
            return False
        for batch in self._messages(found, copied):
            is_new = state.version == 0
            state = self.archive.commit(state, batch, expected_version=state.version).session
            if is_new:
                now = self.hot.load(session_id)
                if now is None or now.session.created_at != state.created_at:
                    # Deleted, perhaps purged, before there was anything in the archive to delete.
                    self.archive.delete_sessions([Target(session_id)])
                    return False
        return True

    def _sequence_of(self, message_id: str, found: Loaded) -> int:
        """The sequence in the hot store of a message that is archived; 0 if the hot store has it no more."""
        page = Page(found.messages[::-1])
        while True:
            for message in page.items:
                if message.id == message_id:
                    return message.sequence
            first = page.items[-1].sequence if page.items else 1
            if first == 1:
                return 0
            page = self.hot.find_messages(
                MessageQuery(session_id=found.session.id, before=first, order="newest", limit=MAX_PAGE)
            )

    def _messages(self, found: Loaded, copied: int) -> Iterator[Sequence[Message]]:
        """The messages after the sequence `copied`, in parts; one empty part if there are none."""
        session, loaded = found.session, [item for item in found.messages if item.sequence > copied]
        if len(loaded) == session.message_count - copied:
            yield loaded
            return
        while copied < session.message_count:
            page = self.hot.find_messages(
                MessageQuery(
                    session_id=session.id, after=copied, before=session.message_count + 1, limit=MAX_PAGE
                )
            )
            if not page.items:  # deleted meanwhile
                raise SessionConflictError(session.id, session.version, None)
            yield page.items
            copied = page.items[-1].sequence


class _Progress:
    """How far `catch_up` has come: a walk over all sessions changed after `since`, and where it is."""

    def __init__(self, archive: PersistenceAdapter) -> None:
        self._archive = archive
        found = archive.load(PROGRESS_ID)
        self._session = create_session(PROGRESS_ID, agent_name="inturn") if found is None else found.session
        self._data = self._session.data
        if "started" not in self._data:
            self.begin(None)

    @property
    def since(self) -> datetime | None:
        since = self._data["since"]
        return None if since is None else datetime.fromisoformat(since)

    @property
    def cursor(self) -> str | None:
        cursor: str | None = self._data["cursor"]
        return cursor

    def begin(self, since: datetime | None) -> None:
        """Begin a walk."""
        self._data.update(since=since and since.isoformat(), cursor=None, started=utcnow().isoformat())

    def advance(self, page: Page[SessionState]) -> None:
        """Note that the sessions of `page` are done; after the last page the next walk begins."""
        self._data["cursor"] = page.cursor
        if page.cursor is None:
            # A session of the future, by a clock that is wrong, must not hide what others do until then.
            done = datetime.fromisoformat(self._data["started"])
            if page.items:
                done = min(done, page.items[-1].updated_at)
            self.begin(done - OVERLAP if self.since is None else max(done - OVERLAP, self.since))
        with suppress(SessionConflictError):  # somebody else catches up too, and notes the same
            self._session.adopt(
                self._archive.commit(self._session, expected_version=self._session.version).session
            )


def _is_same(wanted: SessionState, there: SessionState) -> bool:
    return wanted.model_copy(update={"updated_at": there.updated_at}) == there


def _warn(error: Exception, session_id: str | None) -> None:
    why = str(error) if isinstance(error, InturnError) else type(error).__name__
    _log.warning("session not archived", session_id=session_id, error=why)
