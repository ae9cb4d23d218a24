"""Erasure: all there is of one user is removed, wherever it is: `erase_user`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pydantic import BaseModel, Field

from inturn.accepting import open_inbox
from inturn.contract import Response, TurnResult
from inturn.errors import TurnCancelledError
from inturn.ids import check_id
from inturn.people import messages_of, sessions_of, user_of, waiting_turns
from inturn.persistence import rows
from inturn.persistence.adapter import MAX_PAGE, MessageQuery, PersistenceAdapter, Target
from inturn.persistence.archiving import ArchivingAdapter
from inturn.persistence.audited import AuditedAdapter
from inturn.persistence.opening import layer_of
from inturn.persistence.tombstones import SETTLE_SECONDS, Tombstones
from inturn.session.state import Message, TurnRecord
from inturn.settings import Settings
from inturn.turns.broker import broker_errors, connect_broker
from inturn.turns.broker_messages import remove_messages
from inturn.turns.connection import redis_errors
from inturn.turns.dead_letters import DeadLetters
from inturn.turns.mailbox import Mailbox
from inturn.turns.wiping import Wiper

if TYPE_CHECKING:
    from redis import Redis

BLANK = "[erased]"
"""What stands in the place of what the user has said in sessions of others."""
MOST_PASSES = 10
_BATCH = 100


class ErasureReport(BaseModel):
    """What was removed of a user, by place, or with `dry_run` would be; none of it says what was in it.

    `elsewhere` are sessions of others, or of nobody, in which the user has spoken: their words, and the
    replies to them, are blanked (`messages_blanked`); `not_blanked` counts those that the store cannot
    change in place. `cut_off` counts turns that still ran when patience was over: what they come to is
    refused. `finished` is False if the user went on writing all the while: call again.
    """

    user_id: str
    dry_run: bool = False
    sessions: int = 0
    messages: int = 0
    turns_cancelled: int = 0
    cut_off: int = 0
    broker_messages: int = 0
    deliveries: int = 0
    dead_letters: int = 0
    results: int = 0
    streams: int = 0
    claims: int = 0
    tickets: int = 0
    rate_limits: int = 0
    messages_blanked: int = 0
    not_blanked: int = 0
    elsewhere: list[str] = Field(default_factory=list)
    finished: bool = True


Progress = Callable[[str, int], None]
"""Called with a place and how many things of it are done, as they are."""


def erase_user(
    settings: Settings,
    store: PersistenceAdapter,
    redis: Redis,
    user_id: str,
    *,
    dry_run: bool = False,
    patience: float = 30.0,
    on_progress: Progress | None = None,
) -> ErasureReport:
    """Remove all there is of a user: their sessions, whatever waits, runs, failed or was told of them.

    A turn that runs is asked to stop and given `patience` seconds; then it is cut off, and what it still
    writes is refused, as is whatever else was accepted before. What the user says while they are being erased
    goes with the rest; what they say afterwards begins anew.

    Takes a few seconds at least. Whatever ends it before its end, also `kill -9`: call it again, with any
    number of others at the same time. Of somebody of whom there is nothing it removes nothing. Raises
    `InvalidInputError`, and what store and Redis raise.
    """
    check_id(user_id, "user ID")
    with_progress = on_progress or (lambda _place, _count: None)
    erasure = _Erasure(settings, store, redis, user_id, patience, with_progress)
    try:
        return erasure.count() if dry_run else erasure.run()
    finally:
        erasure.close()


class _Erasure:
    def __init__(
        self,
        settings: Settings,
        store: PersistenceAdapter,
        redis: Redis,
        user_id: str,
        patience: float,
        on_progress: Progress,
    ) -> None:
        self._store = store
        self._stores = _bare(store)
        self._user = user_id
        self._patience = patience
        self._tell = on_progress
        self._mailbox = Mailbox(redis, settings)
        self._out = Mailbox(redis, settings, prefix=f"{settings.key_prefix}-out")
        self._wiper = Wiper(redis, settings)
        self._letters = DeadLetters(redis, settings)
        self._app = connect_broker(settings)
        self._inbox = open_inbox(settings)
        audited = layer_of(store, AuditedAdapter)
        self._audit = None if audited is None else audited.log
        # Looking at tombstones is no look at anybody's session.
        self._tombstones = Tombstones(store if audited is None else audited.inner)
        self._report = ErasureReport(user_id=user_id)
        self._cancelled: set[str] = set()

    def close(self) -> None:
        if self._inbox is not None:
            self._inbox.close()
        self._app.close()

    def run(self) -> ErasureReport:
        report = self._report
        mine: set[str] = set()
        for turn in range(MOST_PASSES):
            if turn:
                time.sleep(SETTLE_SECONDS)
            mine |= self._sessions()
            self._note("asked", mine)
            # Before anything goes: what is gone says no more whose it was.
            self._tombstones.put_user(self._user, mine)
            report.finished = not self._pass(sorted(mine)) and turn > 0
            if report.finished:
                self._tombstones.put_user(self._user, ())
                break
        self._note("done" if report.finished else "unfinished", mine)
        return report

    def count(self) -> ErasureReport:
        report = self._report
        report.dry_run = True
        mine = self._sessions()
        waiting = [turn for turn in waiting_turns(self._mailbox, self._inbox) if self._is_theirs(turn, mine)]
        report.turns_cancelled = len(waiting)
        for adapter in self._stores:
            for session in sessions_of(adapter, self._user):
                report.sessions += 1
                report.messages += session.message_count
        report.deliveries = sum(item.session_id in mine for item in self._out.items())
        report.dead_letters = len(self._dead(mine))
        self._remove_keys(mine, dry_run=True)
        with broker_errors():
            report.broker_messages = remove_messages(self._app, mine, self._user, dry_run=True)
        self._remove_results(mine, self._turn_ids(mine), dry_run=True)
        self._blank(mine, dry_run=True)
        return report

    def _sessions(self) -> set[str]:
        """The sessions that are the user's, whoever knows of them."""
        found = set(self._tombstones.unfinished(self._user))
        for adapter in self._stores:
            found.update(session.id for session in sessions_of(adapter, self._user))
        begun = set(self._wiper.claimed(self._user))
        for session_id, _, payload in waiting_turns(self._mailbox, self._inbox):
            if user_of(payload) == self._user:
                begun.add(session_id)
        begun.update(letter.session_id for letter in self._letters.letters() if letter.user_id == self._user)
        # In a session that somebody else has begun they are a guest.
        return found | {
            session_id for session_id in begun - found if self._stores[0].load(session_id) is None
        }

    def _pass(self, mine: Sequence[str]) -> int:
        """Remove what there is now; returns how much of it was alive: sessions, and turns that waited."""
        report = self._report
        before = report.sessions + report.turns_cancelled + report.broker_messages
        turn_ids = self._turn_ids(mine)
        with broker_errors():
            report.broker_messages += remove_messages(self._app, mine, self._user, dry_run=False)
        self._stop(mine)
        for some in _batches(mine):
            for session_id, wiped in zip(some, self._wiper.wipe(some), strict=True):
                turn_ids.update(wiped.known)
                self._cancelled.update(wiped.turns)
                report.turns_cancelled += len(wiped.turns)
                self._tombstones.put_session(session_id, wiped.known)
                if self._inbox is not None:
                    report.turns_cancelled += max(
                        0, self._inbox.remove_session(session_id) - len(wiped.turns)
                    )
            self._tell("turns", report.turns_cancelled)
        self._drop_as_guest(mine)
        for some in _batches(mine):
            report.sessions += len(self._delete(some))
            self._tell("sessions", report.sessions)
        for some in _batches(mine):
            report.deliveries += self._wiper.wipe_deliveries(some)
        for session_id, turn_id in self._dead(mine):
            report.dead_letters += self._letters.remove(session_id, turn_id)
        self._remove_keys(mine, dry_run=False)
        self._remove_results(mine, turn_ids, dry_run=False)
        self._blank(mine, dry_run=False)
        return report.sessions + report.turns_cancelled + report.broker_messages - before

    def _stop(self, mine: Iterable[str]) -> None:
        """Drop what waits, ask what runs to stop, and wait for it."""
        ids = set(mine)
        running = {}
        for session_id in ids:
            for item in self._mailbox.items(session_id):
                outcome = self._mailbox.cancel(session_id, item.turn_id)
                if outcome == "dropped":
                    self._report.turns_cancelled += 1
                    self._cancelled.add(item.turn_id)
                    if self._inbox is not None:
                        self._inbox.remove(session_id, [item.turn_id])
                elif item.running:
                    running[session_id] = item.turn_id
        until = time.monotonic() + self._patience
        while running:
            running = {
                session_id: turn_id
                for session_id, turn_id in running.items()
                if any(item.running and item.turn_id == turn_id for item in self._mailbox.items(session_id))
            }
            if time.monotonic() > until:
                self._report.cut_off += len(running)
                return
            if running:
                time.sleep(0.05)

    def _drop_as_guest(self, mine: Iterable[str]) -> None:
        """The user's turns that wait in sessions of others."""
        ids = set(mine)
        for session_id, turn_id, payload in waiting_turns(self._mailbox, self._inbox):
            if session_id not in ids and user_of(payload) == self._user:
                dropped = self._mailbox.cancel(session_id, turn_id) == "dropped"
                gone = 0 if self._inbox is None else self._inbox.remove(session_id, [turn_id])
                if dropped or gone:
                    self._report.turns_cancelled += 1
                    self._cancelled.add(turn_id)

    def _delete(self, some: Sequence[str]) -> set[str]:
        for session_id in some:
            loaded = self._stores[0].load(session_id)
            self._report.messages += 0 if loaded is None else loaded.session.message_count
        gone = set(self._store.delete_sessions([Target(session_id) for session_id in some]))
        archiving = layer_of(self._store, ArchivingAdapter)
        return gone if archiving is None else gone | set(archiving.purge(some))

    def _dead(self, mine: Iterable[str]) -> list[tuple[str, str]]:
        ids = set(mine)
        return [
            (letter.session_id, letter.turn_id)
            for letter in self._letters.letters()
            if letter.session_id in ids or letter.user_id == self._user
        ]

    def _remove_keys(self, mine: Iterable[str], *, dry_run: bool) -> None:
        found = self._wiper.scan(self._user, set(mine))
        remove = len if dry_run else self._wiper.remove
        self._report.streams += remove(found.streams)
        self._report.claims += remove(found.claims)
        self._report.tickets += remove(found.tickets)
        self._report.rate_limits += remove(found.limits)

    def _turn_ids(self, mine: Iterable[str]) -> set[str]:
        """The turns that the history names; others are found by their names."""
        found: set[str] = set()
        for session_id in mine:
            for message in messages_of(self._stores[0], MessageQuery(session_id=session_id, limit=MAX_PAGE)):
                if message.turn_id is not None:
                    found.add(message.turn_id)
        return found

    def _remove_results(self, mine: Iterable[str], turn_ids: set[str], *, dry_run: bool) -> None:
        """What handles and `AsyncResult` are told; of a turn that was cancelled just now only that."""
        ids, backend = set(mine), _backend(self._app)
        with redis_errors():
            for turn_id in self._cancelled:
                # First: Celery keeps what has succeeded. A worker may have died between its result and its
                # end, and a turn's ID may have come again.
                backend.forget(turn_id)
                gone = TurnCancelledError("the turn was cancelled before it ended", turn_id=turn_id)
                backend.store_result(turn_id, gone, "FAILURE", request=None)
            if hasattr(backend, "client"):
                prefix = _text(backend.get_key_for_task("-")).removesuffix("-")
                names = (_text(key) for key in backend.client.scan_iter(match=f"{prefix}*", count=1000))
                known = {name.removeprefix(prefix) for name in names}
                theirs = {
                    each for each in known if each in turn_ids or unquote(each.partition(":")[0]) in ids
                }
            else:
                theirs = turn_ids
            for turn_id in theirs - self._cancelled:
                self._report.results += 1
                if not dry_run:
                    backend.forget(turn_id)
        self._tell("results", self._report.results)

    def _blank(self, mine: Iterable[str], *, dry_run: bool) -> None:
        """What the user has said in sessions of others, and what was replied to it."""
        ids = set(mine)
        spoken: dict[str, set[str]] = {}
        for adapter in self._stores:
            for message in messages_of(adapter, MessageQuery(user_id=self._user, limit=MAX_PAGE)):
                if message.session_id not in ids and message.content != BLANK:
                    spoken.setdefault(message.session_id, set()).add(message.turn_id or "")
        if spoken:
            # First: what is blanked is not found again.
            self._remove_results((), set().union(*spoken.values()), dry_run=dry_run)
        for session_id, turn_ids in spoken.items():
            self._report.elsewhere = sorted({*self._report.elsewhere, session_id})
            rewriting = [adapter for adapter in self._stores if adapter.supports_rewriting]
            for adapter in rewriting:
                query = MessageQuery(session_id=session_id, limit=MAX_PAGE)
                theirs = [
                    _blanked(message)
                    for message in messages_of(adapter, query)
                    if message.content != BLANK
                    and (message.user_id == self._user or message.turn_id in turn_ids)
                ]
                records = [_record(session_id, turn_id) for turn_id in turn_ids if turn_id]
                if dry_run:
                    self._report.messages_blanked += len(theirs)
                    continue
                adapter.rewrite(turns=records)
                self._report.messages_blanked += adapter.rewrite(messages=theirs)
            if not rewriting:
                self._report.not_blanked += len(turn_ids)

    def _is_theirs(self, turn: tuple[str, str, str], mine: Iterable[str]) -> bool:
        session_id, _, payload = turn
        return session_id in mine or user_of(payload) == self._user

    def _note(self, outcome: str, session_ids: Iterable[str]) -> None:
        if self._audit is not None:
            self._audit.append(
                "erase",
                session_ids=sorted(session_ids),
                user_id=self._user,
                call="erase_user",
                outcome=outcome,
            )


def _bare(store: PersistenceAdapter) -> list[PersistenceAdapter]:
    """What is beneath all wrappers: to find what is somebody's must take no key, and is no look at it."""
    layer: Any = store
    while hasattr(layer, "inner") and not isinstance(layer, ArchivingAdapter):
        layer = layer.inner
    return [layer.hot, layer.archive] if isinstance(layer, ArchivingAdapter) else [layer]


def _batches(mine: Sequence[str]) -> Iterator[Sequence[str]]:
    return (mine[start : start + _BATCH] for start in range(0, len(mine), _BATCH))


def _blanked(message: Message) -> Message:
    return message.model_copy(
        update={"content": BLANK, "name": None, "tool_calls": None, "event": {"erased": True}}
    )


def _record(session_id: str, turn_id: str) -> TurnRecord:
    response = Response(message=BLANK, session_id=session_id, turn_id=turn_id)
    result = TurnResult(kind="respond", session_id=session_id, turn_id=turn_id, response=response)
    return TurnRecord(
        session_id=session_id, turn_id=rows.turn_key(turn_id), result=result.model_dump(mode="json")
    )


def _backend(app: Any) -> Any:
    return app.backend


def _text(key: str | bytes) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else key
