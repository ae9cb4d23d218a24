"""What both sides share: task names, queues, the payloads of turns, and their results.

A payload travels as JSON through the mailbox in Redis, never through the broker's messages, which carry
IDs only. Producers and workers of neighbouring releases run side by side during a deployment, so every
payload has a format number `v`: a reader ignores fields it does not know and refuses a number above its
own with a retryable error, which leaves the turn to a newer worker.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from inturn.errors import InturnError, InvalidInputError
from inturn.session.state import HistoryItem, Status, utcnow

if TYPE_CHECKING:
    from kombu import Queue

RESPOND: Final = "respond"
SAVE_SESSION: Final = "save_session"
CLEANUP_SESSIONS: Final = "cleanup_sessions"
WAKE_SESSIONS: Final = "wake_sessions"
DELIVER: Final = "deliver"
CANARY: Final = "canary"
ROTATE_KEYS: Final = "rotate_keys"
ERASE_USER: Final = "erase_user"

TURNS_QUEUE: Final = "turns"
MAINTENANCE_QUEUE: Final = "maintenance"
DELIVERY_QUEUE: Final = "delivery"

PRIORITY_NORMAL: Final = 6
"""Kombu on Redis serves 0 first; ordinary turns leave room above them."""
PRIORITY_RECOVERY: Final = 0
"""For the sessions of a worker that died: they have waited long enough."""

PAYLOAD_VERSION: Final = 1
SEALED_VERSION: Final = 1_000_000
"""What stands for the version of a payload that is sealed: no format will ever have it."""

CANARY_SECONDS: Final = 60
"""How long a canary's message and its answer are kept."""

OverlapPolicy = Literal["enqueue", "merge", "interrupt", "reject"]
"""What happens to a message that comes while its session is busy.

It waits for its turn; becomes one turn with those that wait before it; stops the turn that runs; or is
refused.
"""


def canary_queue(worker: str) -> Queue:
    """The queue of one worker alone, by its node name; bound to nothing, and gone where nobody takes it."""
    from kombu import Exchange, Queue

    name = f"canary.{worker}"
    return Queue(name, Exchange(""), routing_key=name, expires=CANARY_SECONDS)


class UnknownPayloadError(InturnError):
    """The payload was written by a newer release; a worker of that release will take the turn."""

    retryable = True


class _Payload(BaseModel):
    model_config = ConfigDict(extra="ignore")

    v: int = PAYLOAD_VERSION
    session_id: str
    user_id: str | None = None
    bound: bool = False
    """Whether the turn acts for `user_id`: a worker refuses it in any other session."""
    accepted_at: datetime = Field(default_factory=utcnow)
    traceparent: str | None = None
    """The trace of whoever enqueued it, as W3C has it, with `tracestate`; older workers do without."""
    tracestate: str | None = None

    @model_validator(mode="after")
    def _names_whom_it_is_bound_to(self) -> Self:
        if self.bound and self.user_id is None:
            raise ValueError("a turn is bound to a user; give user_id with bound")
        return self


class RespondPayload(_Payload):
    """One user message that wants a reply; with `stream` its text can be read while it is written.

    With an `address` the reply is delivered on `channel` as well. A worker that does not know `stream` gives
    the same reply as a whole, so it needs no format of its own. Neither do `images`, `address` and `bound`:
    there was no release before they came.
    """

    kind: Literal["respond"] = "respond"
    message: str
    images: list[str] = Field(default_factory=list)
    stream: bool = False
    channel: str | None = None
    address: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)


class SaveSessionPayload(_Payload):
    """A change of a session from outside: data and metadata are merged, messages appended."""

    kind: Literal["save_session"] = "save_session"
    data: dict[str, Any] | None = None
    status: Status | None = None
    metadata: dict[str, Any] | None = None
    messages: list[HistoryItem] | None = None


Payload = Annotated[RespondPayload | SaveSessionPayload, Field(discriminator="kind")]
_PAYLOAD: TypeAdapter[RespondPayload | SaveSessionPayload] = TypeAdapter(Payload)


def decode_payload(text: str | bytes) -> RespondPayload | SaveSessionPayload:
    """Read a payload. Raises `UnknownPayloadError` for a newer format, `InvalidInputError` for nonsense."""
    try:
        payload = _PAYLOAD.validate_json(text)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, item["loc"])) or "payload" for item in error.errors())
        # The values stay out of the message: it ends in logs.
        raise InvalidInputError(f"a turn's payload is not valid: {places}") from None
    if payload.v == SEALED_VERSION:
        raise UnknownPayloadError(
            "a turn's payload is sealed with a key that is not in INTURN_ENCRYPTION_KEYS; put it back"
        )
    if payload.v > PAYLOAD_VERSION:
        raise UnknownPayloadError(
            f"a turn's payload has format {payload.v}, this release reads up to {PAYLOAD_VERSION}"
        )
    return payload


class DeliveryNote(BaseModel):
    """What lies in a conversation's out mailbox: which turn's reply is to go out, and nothing that was said.

    The reply and how far it has come are in the store. With `again` somebody asks for a delivery that ended
    as unknown or failed. A reader ignores what it does not know, as it does in a turn's payload.
    """

    model_config = ConfigDict(extra="ignore")

    v: int = PAYLOAD_VERSION
    turn_id: str
    channel: str | None = None
    again: bool = False
    accepted_at: datetime = Field(default_factory=utcnow)
    traceparent: str | None = None
    """The trace of the turn, with `tracestate`."""
    tracestate: str | None = None


def decode_note(text: str | bytes) -> DeliveryNote:
    """Read a note; raises as `decode_payload` does."""
    try:
        note = DeliveryNote.model_validate_json(text)
    except ValidationError:
        raise InvalidInputError("a delivery's note is not valid") from None
    if note.v > PAYLOAD_VERSION:
        raise UnknownPayloadError(
            f"a delivery's note has format {note.v}, this release reads up to {PAYLOAD_VERSION}"
        )
    return note


class DeliveryView(BaseModel):
    """One delivery in an overview: where it stands, as far as Redis knows.

    `waiting` and `sending` ones are still on their way; of those that have ended, only the ones that are
    `unknown`, `failed` or `doubtful` are told. `since` is when it was accepted, or when it ended.
    """

    session_id: str
    turn_id: str
    channel: str | None
    state: Literal["waiting", "sending", "sent", "unknown", "failed"]
    doubtful: bool = False
    attempts: int = 0
    error: str | None = None
    since: datetime


class Usage(BaseModel):
    """What a turn asked of the language model, summed over its calls.

    `cached_tokens` counts those of `input_tokens` that the provider had in its cache. `cost` is in the unit
    of the provider's price list; None: no call had a price.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float | None = None

    def __add__(self, other: Usage) -> Usage:
        costs = [usage.cost for usage in (self, other) if usage.cost is not None]
        return Usage(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cost=sum(costs) if costs else None,
        )


class Piece(NamedTuple):
    """A piece of a reply's text, as it comes.

    With `restarts` all text before this piece is void, and the reply begins anew with it: the turn was taken
    again, by the same worker or by another. The pieces since the last restart, joined, are the reply. `id`
    is where a reader may resume after this piece; it is empty outside the queue.
    """

    text: str
    restarts: bool = False
    id: str = ""


class Response(BaseModel):
    """An agent's answer to one message.

    `route` and `step` are the IDs of those that the message serves (None: of none), `is_route_complete` tells
    that the route is complete with it. `data` is all that the conversation has collected. `usage` is of all
    calls of the model in the turn. `finish_reason` is the model's own, as a rule `stop`; `interrupted`, the
    turn was stopped and this, perhaps nothing, is what it had said; or `failed`, it was given up and this is
    the agent's fallback message.
    """

    message: str
    session_id: str
    turn_id: str
    is_route_complete: bool = False
    route: str | None = None
    step: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    usage: Usage = Field(default_factory=Usage)
    finish_reason: str = "stop"


class TurnFault(BaseModel):
    """Why a turn failed: the error's class, and its message, which never holds conversation text."""

    type: str
    message: str
    attempts: int = 1


class TurnResult(BaseModel):
    """The end of a turn, as stored for `handle.get()` and `AsyncResult(turn_id)`.

    `response` of a failed `respond` carries the agent's fallback message, that of a `save_session` an empty
    message and the session's data; `error` is set if and only if `state` is `failed`.
    """

    kind: Literal["respond", "save_session"]
    session_id: str
    turn_id: str
    state: Literal["done", "failed"] = "done"
    response: Response
    error: TurnFault | None = None


class DeadLetter(BaseModel):
    """A turn that failed and was given up, and may be run again; nothing in it was said by anybody.

    `kind`, `user_id`, `channel` and `accepted_at` are None where nobody could read the turn's payload, which
    has `payload_bytes` bytes. `merged_into` is the first of the turns that it was one with, perhaps itself.
    """

    model_config = ConfigDict(extra="ignore")

    session_id: str = ""
    turn_id: str = ""
    kind: Literal["respond", "save_session"] | None = None
    user_id: str | None = None
    channel: str | None = None
    error: TurnFault
    accepted_at: datetime | None = None
    failed_at: datetime = Field(default_factory=utcnow)
    merged_into: str | None = None
    payload_bytes: int = 0
