"""Client: what a producer needs: offer a turn to its mailbox, publish its message, ask for its result."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from inturn.accepting import Acceptor
from inturn.audit import current_actor
from inturn.contract import (
    CLEANUP_SESSIONS,
    MAINTENANCE_QUEUE,
    DeliveryView,
    OverlapPolicy,
    Piece,
    Response,
    TurnResult,
)
from inturn.dead_turns import DeadTurns
from inturn.errors import (
    MailboxFullError,
    MailboxUnavailableError,
    OverloadedError,
    SessionAccessError,
    SessionBusyError,
    StoreUnavailableError,
    TurnCancelledError,
    TurnFailedError,
    TurnTimeoutError,
)
from inturn.ids import check_id, create_turn_id, session_of_turn
from inturn.session.state import HistoryItem, Status
from inturn.settings import Settings, load_settings
from inturn.turns.broker import broker_errors, connect_broker
from inturn.turns.connection import connect, redis_errors
from inturn.turns.dead_letters import DeadLetters
from inturn.turns.deliveries import Deliveries
from inturn.turns.erasures import Erasures
from inturn.turns.follower import Follower
from inturn.turns.mailbox import Mailbox
from inturn.turns.overlap import ENQUEUE, Overlap, overlap_of
from inturn.turns.payloads import encode_payload, respond_payload, save_session_payload
from inturn.turns.publishing import publish_delivery, publish_turn
from inturn.turns.results import Results
from inturn.turns.sight import Place, Sight
from inturn.turns.streams import Streams
from inturn.turns.traced import traced

if TYPE_CHECKING:
    from celery import Celery
    from celery.result import AsyncResult

TurnStatus = Literal["waiting", "running", "done", "failed", "cancelled", "unknown"]


class TurnHandle:
    """A turn that was accepted.

    `accepted` is False if the turn's ID was known before: nothing was added. `ahead` is the number of turns
    of the session that were to run before this one when it was accepted.
    """

    def __init__(self, client: Client, session_id: str, turn_id: str, *, accepted: bool, ahead: int) -> None:
        self._client = client
        self.session_id = session_id
        self.turn_id = turn_id
        self.accepted = accepted
        self.ahead = ahead

    def __repr__(self) -> str:
        return f"<TurnHandle {self.turn_id!r}>"

    def get(self, timeout: float | None = 60.0) -> Response:
        """Wait for the reply, at most `timeout` seconds (None: for ever).

        Raises `TurnFailedError` for a turn that was recorded as failed, `TurnCancelledError` for a dropped
        one, `SessionAccessError` for a bound one in a session that is not its user's, `TurnTimeoutError` if
        there is no result yet: it is not lost, ask again. A turn that was stopped
        gives what it had said until then, with the finish reason `interrupted`; one that was merged gives the
        reply of the turn that it became part of, with that one's `turn_id`.
        """
        for _, result in self._client.collect([self], timeout=timeout):
            _check(self.session_id, result)
            return result.response
        raise TurnTimeoutError(
            f"turn {self.turn_id} has no result after {timeout} s ({self.status()}); it is not lost: "
            "ask again with the same handle",
            turn_id=self.turn_id,
        )

    def stream(self, *, after: str = "", timeout: float | None = 60.0) -> Iterator[Piece]:
        """Yield the reply piece by piece as it is written; see `Client.stream`."""
        return self._client.stream(self, after=after, timeout=timeout)

    def status(self) -> TurnStatus:
        """Tell where the turn stands.

        A turn that was stopped while it ran is `done`, one that was dropped before is `cancelled`. `unknown`:
        not in the mailbox, and its result is older than `INTURN_RESULT_SECONDS` or never was.
        """
        return self._client.status(self.session_id, self.turn_id)

    def cancel(self) -> Literal["dropped", "signalled", "unknown"]:
        """Drop the turn if it waits, stop it if it runs; see `Client.cancel`."""
        return self._client.cancel(self.session_id, self.turn_id)


class Client:
    """Enqueues turns. Safe to share between threads; make one per process, after a fork.

    Every call that enqueues may be repeated with the same `turn_id`: an ID that is known is accepted
    without adding anything. So after `MailboxUnavailableError` (Redis or the broker away) repeat the call
    with the error's `turn_id`. An `app` that is given stays the caller's to close.
    """

    def __init__(self, settings: Settings | None = None, *, app: Celery | None = None) -> None:
        self.settings = settings or load_settings()
        self._app = app or connect_broker(self.settings)
        self._owns_app = app is None
        self._redis = connect(self.settings, timeout=2.0, retries=1)
        self._mailbox = Mailbox(self._redis, self.settings)
        self._acceptor = Acceptor(self._mailbox, self.settings)
        self._streams = Streams(self._redis, self.settings)
        self._deliveries = Deliveries(self._redis, self.settings)
        self._results = Results(self._app, self.settings)
        self._erasures = Erasures(self._redis, self.settings)
        self.dead = DeadTurns(DeadLetters(self._redis, self.settings), self.settings, self._offer)
        """The turns that failed: to look at, to run again, or to drop."""

    def respond(
        self,
        session_id: str,
        message: str,
        *,
        turn_id: str | None = None,
        user_id: str | None = None,
        bound: bool = False,
        channel: str | None = None,
        address: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        images: Sequence[str] = (),
        stream: bool = False,
        overlap: OverlapPolicy | None = None,
        quiet: float | None = None,
    ) -> TurnHandle:
        """Enqueue a user's message; returns once the turn is safely in its mailbox (or its inbox).

        `turn_id` is the idempotency key (a Slack `event_id`, a Twilio `MessageSid`); without one every call
        is a new turn. `images` are the `https:` or `data:image/` URLs of what the user shows. With `stream`
        the reply can be read while it is written: see `TurnHandle.stream`. With an `address`, a JSON object
        that `channel` reads, the reply is also sent there by a worker that has this channel.

        `bound`: the turn acts for `user_id` alone. In a session of somebody else, or of nobody, it is refused
        by the worker: nothing is read or written, and whoever asks for its result gets `SessionAccessError`.

        `overlap` is what happens if the session is busy: `enqueue` it behind the turns that wait; `merge` it
        with those before it of the same user and place into one turn, and wait `quiet` seconds for another;
        `interrupt` the turn that runs (of a bound turn: `merge` it, for whose turn runs is not known yet); or
        `reject` it. Without them the settings decide, by channel.

        Raises `InvalidInputError`, `MailboxFullError`, `OverloadedError`, `SessionBusyError` (with `reject`)
        or `MailboxUnavailableError` (with `INTURN_INBOX=database` for the database `StoreUnavailableError`);
        in all of them nothing was accepted that a repeated call would double.
        """
        payload = respond_payload(
            self.settings,
            session_id,
            message,
            user_id=user_id,
            bound=bound,
            channel=channel,
            address=address,
            metadata=metadata,
            images=images,
            stream=stream,
        )
        turn_id = create_turn_id(session_id, turn_id)
        with traced(payload, turn_id):
            text = encode_payload(self.settings, payload)
            plan = overlap_of(self.settings, payload, text, policy=overlap, quiet=quiet)
            return self._offer(session_id, turn_id, text, plan)

    def save_session(
        self,
        session_id: str,
        *,
        data: Mapping[str, Any] | None = None,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        messages: Sequence[HistoryItem | Mapping[str, Any]] | None = None,
        user_id: str | None = None,
        bound: bool = False,
        turn_id: str | None = None,
    ) -> TurnHandle:
        """Enqueue a change of a session from outside, in order with its turns.

        `data` and `metadata` are merged into what is there, `messages` are appended to the history. `bound`
        is as in `respond`. Raises as that does.
        """
        payload = save_session_payload(
            self.settings,
            session_id,
            data=data,
            status=status,
            metadata=metadata,
            messages=messages,
            user_id=user_id,
            bound=bound,
        )
        turn_id = create_turn_id(session_id, turn_id)
        with traced(payload, turn_id):
            return self._offer(session_id, turn_id, encode_payload(self.settings, payload))

    def ping(self) -> None:
        """Return if Redis answers, else raise `MailboxUnavailableError`."""
        with redis_errors():
            self._redis.ping()

    def cleanup_sessions(self, *, dry_run: bool = False) -> AsyncResult[Any]:
        """Ask for retention now; the task's result is a `RetentionReport`, as JSON.

        What takes longer than a minute goes on in further tasks; then it is the report of the run so far.

        Raises `MailboxUnavailableError`.
        """
        self.ping()  # Celery would try to subscribe to the result for 20 seconds
        with redis_errors(), broker_errors():
            return self._app.send_task(
                CLEANUP_SESSIONS, kwargs={"dry_run": dry_run}, queue=MAINTENANCE_QUEUE, add_to_parent=False
            )

    def erase_user(self, user_id: str, *, patience: float = 30.0) -> AsyncResult[Any]:
        """Ask a worker to erase all there is of a user; the task's result is an `ErasureReport`, as JSON.

        For programs that have not the rights which that takes (`inturn.erasure.erase_user`). A turn that runs
        is given `patience` seconds to end. May be repeated at any time: what was asked for and has not begun
        is not asked for twice. The report can be read for some minutes, by all who wait for it: leave it to
        expire.

        Raises `InvalidInputError` or `MailboxUnavailableError`.
        """
        check_id(user_id, "user ID")
        return self._erasures.ask(self._app, user_id, patience=patience, actor=current_actor())

    def deliveries(self, session_id: str | None = None) -> list[DeliveryView]:
        """List the replies that wait to go out, then those that ended `unknown`, `failed` or `doubtful`.

        Of the latter the last 1,000 of 30 days. What a delivery has come to is in its session's `outbox`.
        """
        return list(self._deliveries.overview(session_id))

    def retry_delivery(self, session_id: str, turn_id: str) -> bool:
        """Ask for a delivery that ended as `unknown` or `failed` to be made again, behind those that wait.

        It goes on with the part that it ended with. Returns whether `deliveries()` has it. One that it has
        not is asked for all the same, and the worker sees whether the session has it; what has arrived is
        not sent again. Raises as `respond` does.
        """
        ended = {view.turn_id for view in self._deliveries.outcomes.read() if view.session_id == session_id}
        if turn_id not in ended:
            turn_id = create_turn_id(session_id, turn_id)
        offered = self._deliveries.offer_again(session_id, turn_id)
        if offered.outcome == "full":
            raise MailboxFullError(session_id, offered.ahead)
        if offered.publish:
            publish_delivery(self._app, session_id, turn_id=turn_id)
        return turn_id in ended

    def handle(self, session_id: str, turn_id: str) -> TurnHandle:
        """Make a handle of a turn that was enqueued before, perhaps by another process."""
        return TurnHandle(self, session_id, create_turn_id(session_id, turn_id), accepted=False, ahead=0)

    def status(self, session_id: str, turn_id: str) -> TurnStatus:
        """Tell where a turn stands; see `TurnHandle.status`."""
        # In this order: a turn leaves the mailbox after its result is stored, so what is gone has a result.
        state = self._acceptor.state(session_id, turn_id)
        result = self._results.find([turn_id]).get(turn_id)
        if result is None:
            return state
        if result.error is not None and result.error.type == "TurnCancelledError":
            return "cancelled"
        return result.state

    def cancel(self, session_id: str, turn_id: str) -> Literal["dropped", "signalled", "unknown"]:
        """Drop a waiting turn (its result becomes `TurnCancelledError`), or stop a running one.

        A running turn is `signalled`, and ends at its next piece of text, or before its next call of the
        model if it is not streamed. What it had said until then is its reply, with the finish reason
        `interrupted`, and the session goes on with its next turn. A call of the model that is not streamed
        is not cut off, so such a turn may well end as if nobody had asked. `unknown`: it has ended, or never
        was.

        May be repeated, and should be after `MailboxUnavailableError`: the turn may have gone without its
        result.
        """
        try:
            outcome = self._acceptor.cancel(session_id, turn_id)
            if outcome == "dropped":
                dropped = TurnCancelledError("the turn was cancelled before it ran", turn_id=turn_id)
                with redis_errors():
                    self._app.backend.store_result(turn_id, dropped, "FAILURE", request=None)
        except MailboxUnavailableError as error:
            error.turn_id = turn_id
            raise
        return outcome

    def stream(
        self, turn: TurnHandle | str, *, after: str = "", timeout: float | None = 60.0
    ) -> Iterator[Piece]:
        """Yield the reply of a turn (its handle or its ID) piece by piece, as it is written, to its end.

        The texts since the last piece with `restarts`, joined, are the reply that `TurnHandle.get` gives.
        Each piece has an `id`: with that as `after`, any client goes on exactly behind it. A turn that was
        enqueued without `stream`, or whose text Redis has lost meanwhile, gives its whole reply at its end.

        Raises `InvalidInputError` for an `after` that is no such ID, and what `TurnHandle.get` raises: of a
        turn that failed the fallback message is yielded first, if it was streamed. After `TurnTimeoutError`
        (nothing has come for `timeout` seconds; None: waits for ever) and `MailboxUnavailableError` go on
        with the last piece's ID.
        """
        handle = turn if isinstance(turn, TurnHandle) else self.handle(session_of_turn(turn), turn)
        return self._follow(handle, Follower(after), timeout)

    def look(self, places: Sequence[Place]) -> list[Sight]:
        """See what there is of many turns now; three round trips, whatever their number, and no waiting."""
        turns = [(place.session_id, place.turn_id) for place in places]
        # In this order: a result is stored after the last piece was written, and before the turn leaves.
        results = self._results.find([place.turn_id for place in places])
        entries = self._streams.read_all(places)
        views = self._mailbox.look_all(turns)
        return [
            Sight(results.get(place.turn_id), some, view)
            for place, some, view in zip(places, entries, views, strict=True)
        ]

    def collect(
        self, handles: Iterable[TurnHandle], *, timeout: float | None = 60.0
    ) -> Iterator[tuple[TurnHandle, TurnResult]]:
        """Yield each handle with its result as results come in; ends early when `timeout` seconds are over.

        Asks for all of them together, so waiting for thousands costs no more connections than for one.
        """
        open_handles: dict[str, list[TurnHandle]] = {}
        for handle in handles:
            open_handles.setdefault(handle.turn_id, []).append(handle)
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.01
        while open_handles:
            found = self._results.find(list(open_handles))
            for turn_id, result in found.items():
                for handle in open_handles.pop(turn_id):
                    yield handle, result
            left = float("inf") if deadline is None else deadline - time.monotonic()
            if not open_handles or left <= 0:
                return
            pause = 0.01 if found else min(pause * 1.5, 0.1)
            time.sleep(min(pause, left))

    def close(self) -> None:
        """Close the connections."""
        self._acceptor.close()
        self._redis.close()
        if self._owns_app:
            self._app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self, handle: TurnHandle, follower: Follower, timeout: float | None) -> Iterator[Piece]:
        turn_id = handle.turn_id
        result = yield from follower.follow(
            self._streams,
            handle.session_id,
            turn_id,
            lambda: self._results.find([turn_id]).get(turn_id),
            timeout,
        )
        if result is None:
            raise TurnTimeoutError(
                f"no text of turn {turn_id} has come for {timeout} s ({handle.status()}); it is not lost: "
                "go on after the last piece's ID",
                turn_id=turn_id,
            )
        _check(handle.session_id, result)

    def _offer(self, session_id: str, turn_id: str, payload: str, overlap: Overlap = ENQUEUE) -> TurnHandle:
        try:
            offered = self._acceptor.offer(session_id, turn_id, payload, overlap)
        except (MailboxUnavailableError, StoreUnavailableError) as error:
            error.turn_id = turn_id
            raise
        if offered.outcome == "full":
            raise MailboxFullError(session_id, offered.ahead)
        if offered.outcome == "rejected":
            raise SessionBusyError(session_id, offered.ahead)
        if offered.outcome == "shut":
            raise OverloadedError(offered.ahead)
        if offered.publish:
            self._publish(session_id, turn_id)
        return TurnHandle(self, session_id, turn_id, accepted=offered.outcome == "new", ahead=offered.ahead)

    def _publish(self, session_id: str, turn_id: str) -> None:
        # Where it fails, the turn is in its mailbox and will run (a sweeper finds it), but the caller is not
        # told yes on the strength of that: the repeated call finds the turn known and publishes again.
        try:
            publish_turn(self._app, session_id, turn_id)
        except MailboxUnavailableError:
            if not self._acceptor.is_durable:
                raise


def _check(session_id: str, result: TurnResult) -> None:
    if result.error is not None:
        if result.error.type == SessionAccessError.__name__:
            raise SessionAccessError(session_id)
        kind = TurnCancelledError if result.error.type == "TurnCancelledError" else TurnFailedError
        raise kind(f"turn {result.turn_id} failed: {result.error.message}", turn_id=result.turn_id)
