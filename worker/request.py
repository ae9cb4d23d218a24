"""Request: what Celery shows of a task's arguments to logs, events and `inspect`."""

from __future__ import annotations

from typing import Any

from celery.worker import request


class Request(request.Request):
    """Shows which session a task is about and nothing that a user has said.

    A message sent without this library carries the user's words in its arguments, and Celery would show
    them in the event `task-received` (so in Flower) and in `inspect active`.
    """

    @property
    def argsrepr(self) -> str:
        """Nothing: positional arguments are not named, so none can be told to be harmless."""
        return "()"

    @property
    def kwargsrepr(self) -> str:
        """The session's ID."""
        return repr({"session_id": (self.kwargs or {}).get("session_id")})

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002
        """What `inspect` tells of a running task: all but its arguments."""
        return {**super().info(safe=True), "args": self.argsrepr, "kwargs": self.kwargsrepr}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.humaninfo()} {self.kwargsrepr}>"
