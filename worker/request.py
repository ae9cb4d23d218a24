"""Request: what Celery shows of a task's arguments to logs, events and `inspect`, and what it may discard."""

from __future__ import annotations

from typing import Any

from celery.worker import request

from inturn.contract import RESPOND


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
        """The session's ID, of a task of a session."""
        kwargs = self.kwargs or {}
        return repr({"session_id": kwargs["session_id"]} if "session_id" in kwargs else {})

    def revoked(self) -> bool:
        """Never, for a message that only wakes a session: it can be spared, the turns behind it cannot.

        Each of them has the ID of the head turn. If a worker discarded those, the session would stand still
        for as long as the worker remembers. A turn is cancelled with `Client.cancel`.
        """
        wakes = self.name == RESPOND and not self.args and set(self.kwargs or ()) == {"session_id"}
        return not wakes and bool(super().revoked())

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002
        """What `inspect` tells of a running task: all but its arguments."""
        return {**super().info(safe=True), "args": self.argsrepr, "kwargs": self.kwargsrepr}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.humaninfo()} {self.kwargsrepr}>"
