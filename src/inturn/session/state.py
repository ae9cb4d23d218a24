"""What a session is made of: its state, the messages of its history, and the record of a turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from inturn.ids import check_id, create_message_id, create_session_id

Role = Literal["user", "assistant", "system", "tool"]
Status = Literal["active", "completed", "abandoned"]


def utcnow() -> datetime:
    """Now, in UTC and aware of it: every time in inturn is."""
    return datetime.now(UTC)


class HistoryItem(BaseModel):
    """One line of a conversation as an agent sees it."""

    role: Role
    content: str
    name: str | None = None
    timestamp: datetime | None = None


class Message(BaseModel):
    """One stored row of a session's history.

    `sequence` counts a session's messages from 1 without gaps; the store assigns it at commit, and it is 0
    until then. `turn_id` names the turn that wrote the row.
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
    created_at: datetime = Field(default_factory=utcnow)

    def to_history_item(self) -> HistoryItem:
        """This row as an agent sees it."""
        return HistoryItem(role=self.role, content=self.content, name=self.name, timestamp=self.created_at)


class RouteRef(BaseModel):
    """The route a session is in, and since when."""

    id: str
    title: str = ""
    entered_at: datetime = Field(default_factory=utcnow)


class StepRef(BaseModel):
    """The step a session is at, and since when."""

    id: str
    description: str = ""
    entered_at: datetime = Field(default_factory=utcnow)


class RouteHistoryEntry(BaseModel):
    """One stay in a route; `exited_at` is None while it lasts."""

    route_id: str
    entered_at: datetime = Field(default_factory=utcnow)
    exited_at: datetime | None = None
    completed: bool = False


class SessionState(BaseModel):
    """The whole state of one conversation.

    `history` is the window of the history that was loaded, oldest first; it is not part of what is saved:
    messages are rows of their own. `version` counts the commits (0: never saved). Messages with a sequence
    up to `history_start` were cleared: they stay in the store and are no longer part of the conversation.
    """

    model_config = ConfigDict(validate_assignment=False)

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
    history: list[HistoryItem] = Field(default_factory=list)
    history_start: int = 0
    metadata: dict[str, Any] = Field(default_factory=dict)
    message_count: int = 0
    last_message_at: datetime | None = None
    completed_at: datetime | None = None
    created_at: datetime = Field(default_factory=utcnow)
    updated_at: datetime = Field(default_factory=utcnow)
    version: int = 0
    schema_version: int | None = None

    def enter_route(self, route: RouteRef) -> None:
        """Go to `route`: closes the open entry of the route history and clears the step."""
        self.leave_route()
        self.current_route = route
        self.route_history.append(RouteHistoryEntry(route_id=route.id, entered_at=route.entered_at))

    def leave_route(self, *, completed: bool = False) -> None:
        """Leave the current route, if there is one, and note whether it was completed."""
        if self.current_route is not None:
            for entry in reversed(self.route_history):
                if entry.route_id == self.current_route.id and entry.exited_at is None:
                    entry.exited_at = utcnow()
                    entry.completed = completed
                    break
        self.current_route = None
        self.current_step = None

    def enter_step(self, step: StepRef) -> None:
        """Go to `step` of the current route."""
        self.current_step = step

    def set_status(self, status: Status, completed_at: datetime | None = None) -> None:
        """Set the status; `completed` is stamped with a time, the others clear it."""
        self.status = status
        self.completed_at = (completed_at or utcnow()) if status == "completed" else None


class TurnRecord(BaseModel):
    """That a turn was committed, and with which result (a JSON object); unique per session and turn ID."""

    session_id: str
    turn_id: str
    result: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime = Field(default_factory=utcnow)


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
    `SessionState`. Raises `InvalidInputError` for an ID that may not be one (see `check_id`), pydantic's
    `ValidationError` for a field of the wrong type.
    """
    return SessionState(
        id=create_session_id() if id is None else check_id(id),
        data=dict(data or {}),
        history=[HistoryItem.model_validate(item) for item in history],
        metadata=dict(metadata or {}),
        **state,
    )
