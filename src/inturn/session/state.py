"""What a session is made of: its state, the messages of its history, and the record of a turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from inturn.errors import InvalidInputError
from inturn.ids import check_id, create_message_id, create_session_id

Role = Literal["user", "assistant", "system", "tool"]
Status = Literal["active", "completed", "abandoned"]
M = TypeVar("M", bound="_State")

MERGED_INTO = "merged_into"
"""In the event of a user's message, and in the journal: the turn that has answered it with its own."""


def utcnow() -> datetime:
    """Now, in UTC and aware of it: every time in inturn is."""
    return datetime.now(UTC)


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


Time = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""A point in time: a time without a zone is refused, any other is turned into UTC."""


class _State(BaseModel):
    # A refused value may be what somebody said, and errors end in logs.
    # Fields can be assigned, so what was valid when it was made need not be when it is saved.
    model_config = ConfigDict(hide_input_in_errors=True, revalidate_instances="always")


class HistoryItem(_State):
    """One line of a conversation as an agent sees it.

    `images` of a user's line are URLs (`https:` or `data:`). A line of the role `tool` is the output of the
    call in `tool_calls`.
    """

    role: Role
    content: str
    name: str | None = None
    timestamp: Time | None = None
    images: list[str] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Message(_State):
    """One stored row of a session's history.

    `sequence` counts a session's messages from 1 without gaps; the store assigns it at commit, and it is 0
    until then. `turn_id` names the turn that wrote the row; a message of the user that another turn took
    along has its own, and in its `event` that of the other (`merged_into`).
    """

    id: str = Field(default_factory=create_message_id)
    session_id: str
    sequence: int = 0
    turn_id: str | None = None
    user_id: str | None = None
    role: Role
    content: str
    name: str | None = None
    route: str | None = None
    step: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    event: dict[str, Any] | None = None
    created_at: Time = Field(default_factory=utcnow)

    def to_history_item(self) -> HistoryItem:
        """This row as an agent sees it."""
        return HistoryItem(
            role=self.role,
            content=self.content,
            name=self.name,
            timestamp=self.created_at,
            images=(self.event or {}).get("images"),
            tool_calls=self.tool_calls,
        )


class RouteRef(_State):
    """The route a session is in, and since when."""

    id: str
    title: str = ""
    entered_at: Time = Field(default_factory=utcnow)


class StepRef(_State):
    """The step a session is at, and since when."""

    id: str
    description: str = ""
    entered_at: Time = Field(default_factory=utcnow)


class RouteHistoryEntry(_State):
    """One stay in a route; `exited_at` is None while it lasts.

    `decisions` holds what the model made of the route's conditions in words, by their keys.
    """

    route_id: str
    entered_at: Time = Field(default_factory=utcnow)
    exited_at: Time | None = None
    completed: bool = False
    decisions: dict[str, bool] = Field(default_factory=dict)


class Summary(_State):
    """What was said up to the message with the sequence `through`, in short: it stands for those rows."""

    text: str
    through: int


class Delivery(_State):
    """A reply on its way out, and how far it has come.

    `sent` counts the parts that the platform has taken, `ids` are its names for them. `sending`: the next
    part is on its way, or its process died. `unknown`: whether a part was taken is not known, and it was not
    sent again. With `doubtful` a part was sent again although the first may have arrived. `asked` is the
    last request by which somebody had it sent again.
    """

    channel: str
    address: dict[str, Any] = Field(default_factory=dict)
    state: Literal["waiting", "sending", "sent", "unknown", "failed"] = "waiting"
    sent: int = 0
    ids: list[str] = Field(default_factory=list)
    doubtful: bool = False
    asked: str | None = None
    error: str | None = None
    changed_at: Time = Field(default_factory=utcnow)

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in ("sent", "unknown", "failed")


class SessionState(_State):
    """The whole state of one conversation.

    `history` is the window of the history that was loaded, oldest first; it is not part of what is saved:
    messages are rows of their own. `version` counts the commits (0: never saved). Messages with a sequence
    up to `history_start` were cleared: they stay in the store and are no longer part of the conversation.
    `outbox` holds the replies that go out on a channel, by their turns' IDs: those on their way, and the last
    few that have arrived. `pending` is what the next turn begins with (`route`: where to go on). `journal`
    holds, by its ID, what a turn that is still open has done and must not do again should it be taken anew:
    its calls of tools, or that another turn has answered it (`merged_into`).
    """

    id: str
    user_id: str | None = None
    agent_name: str | None = None
    status: Status = "active"
    data: dict[str, Any] = Field(default_factory=dict)
    data_by_route: dict[str, dict[str, Any]] = Field(default_factory=dict)
    route_history: list[RouteHistoryEntry] = Field(default_factory=list)
    current_route: RouteRef | None = None
    current_step: StepRef | None = None
    pending: dict[str, Any] | None = None
    journal: dict[str, dict[str, Any]] = Field(default_factory=dict)
    summary: Summary | None = None
    outbox: dict[str, Delivery] = Field(default_factory=dict)
    history: list[HistoryItem] = Field(default_factory=list)
    history_start: int = 0
    metadata: dict[str, Any] = Field(default_factory=dict)
    message_count: int = 0
    last_message_at: Time | None = None
    completed_at: Time | None = None
    created_at: Time = Field(default_factory=utcnow)
    updated_at: Time = Field(default_factory=utcnow)
    version: int = 0
    schema_version: int | None = None

    @property
    def merged(self) -> dict[str, str]:
        """The turns that were committed as part of another and have no record of their own yet, with that."""
        notes = ((turn_id, note.get(MERGED_INTO)) for turn_id, note in self.journal.items())
        return {turn_id: into for turn_id, into in notes if isinstance(into, str)}

    def enter_route(self, route: RouteRef) -> None:
        """Go to `route`: closes the open entry of the route history and clears the step."""
        self.leave_route()
        self.current_route = route
        self.route_history.append(RouteHistoryEntry(route_id=route.id, entered_at=route.entered_at))

    def leave_route(self, *, completed: bool = False) -> None:
        """Leave the current route, if there is one, and note whether it was completed."""
        if (stay := self.stay) is not None:
            stay.exited_at = utcnow()
            stay.completed = completed
        self.current_route = None
        self.current_step = None

    @property
    def stay(self) -> RouteHistoryEntry | None:
        """The open entry of the route history: the stay in the current route."""
        if self.current_route is not None:
            for entry in reversed(self.route_history):
                if entry.route_id == self.current_route.id and entry.exited_at is None:
                    return entry
        return None

    def enter_step(self, step: StepRef) -> None:
        """Go to `step` of the current route."""
        self.current_step = step

    def set_status(self, status: Status, completed_at: datetime | None = None) -> None:
        """Set the status; `completed` is stamped with a time (given, or its first); the others clear it."""
        self.status = status
        self.completed_at = (completed_at or self.completed_at or utcnow()) if status == "completed" else None

    def adopt(self, saved: SessionState) -> None:
        """Take over what a commit assigns; user and schema version it assigns to new sessions only."""
        self.version = saved.version
        self.user_id = saved.user_id
        self.schema_version = saved.schema_version
        self.message_count = saved.message_count
        self.last_message_at = saved.last_message_at
        self.updated_at = saved.updated_at


class UnreadableSession(SessionState):
    """What can be told of a session in a list that cannot be read: IDs, status, times and counts.

    It stands in the session's place where a query asks for that. What was said and collected is not in it, so
    no store takes it back.
    """

    reason: str = ""
    """Why it cannot be read."""


class TurnRecord(_State):
    """That a turn was committed, and with which result (a JSON object); unique per session and turn ID."""

    session_id: str
    turn_id: str
    result: dict[str, Any] = Field(default_factory=dict)
    created_at: Time = Field(default_factory=utcnow)


def build(model: type[M], fields: Mapping[str, Any]) -> M:
    """Make a `model` of `fields`; raises `InvalidInputError`, which names fields and never shows a value.

    A field that the model does not have is an error too: a misspelt one would vanish in silence.
    """
    if unknown := fields.keys() - model.model_fields.keys():
        raise InvalidInputError(f"{model.__name__} has no {', '.join(sorted(map(str, unknown)))}")
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)
        )
        raise InvalidInputError(f"{model.__name__} refused: {faults}") from None


def create_session(
    id: str | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    history: Iterable[HistoryItem | Mapping[str, Any]] = (),
    metadata: Mapping[str, Any] | None = None,
    **state: Any,
) -> SessionState:
    """Make a session that is not saved yet, empty or pre-populated.

    `history` takes items or mappings with `role` and `content`; `state` takes any other field of
    `SessionState`. Raises `InvalidInputError` for an ID that may not be one (see `check_id`), for a field
    of the wrong type and for one that does not exist.
    """
    return build(
        SessionState,
        {
            **state,
            "id": create_session_id() if id is None else check_id(id),
            "data": dict(data or {}),
            "history": list(history),
            "metadata": dict(metadata or {}),
        },
    )


def create_message(session_id: str, role: str, content: str, **fields: Any) -> Message:
    """Make a message that is not saved yet; `fields` takes any other field of `Message`.

    Raises `InvalidInputError` for a role that is none, a content that is no text, and as `create_session`.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    return build(Message, {**given, "session_id": check_id(session_id), "role": role, "content": content})


def create_messages(
    session: SessionState,
    lines: Iterable[HistoryItem | Mapping[str, Any]],
    *,
    turn_id: str | None = None,
    user_id: str | None = None,
) -> list[Message]:
    """Make messages of lines of a conversation; without a `user_id` they belong to the session's user."""
    items = [line if isinstance(line, HistoryItem) else build(HistoryItem, line) for line in lines]
    return [
        create_message(
            session.id,
            item.role,
            item.content,
            name=item.name,
            created_at=item.timestamp,
            turn_id=turn_id,
            user_id=user_id or session.user_id,
        )
        for item in items
    ]
