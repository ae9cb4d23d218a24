"""ScriptedProvider: says what a test tells it to say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

from inturn.agent.provider import ModelReply, ModelRequest, in_pieces
from inturn.errors import ProviderError

Scripted = str | Mapping[str, Any] | ModelReply | BaseException
"""One answer: a message, the whole JSON object, the whole reply, or an error to raise."""


class ScriptedProvider:
    """Answers each request with the next reply, or with what a function makes of the request.

    It waits `delay` seconds before each answer, and streams it in pieces of `size` characters, `pause`
    seconds apart. More requests than replies raise `ProviderError`. `token_budget` is what an agent goes by
    when it compacts a conversation.
    """

    def __init__(
        self,
        replies: Iterable[Scripted] | Callable[[ModelRequest], Scripted],
        *,
        delay: float = 0.0,
        size: int = 12,
        pause: float = 0.0,
        token_budget: int | None = None,
    ) -> None:
        self.token_budget = token_budget
        self._size = size
        self._pause = pause
        self._make = replies if callable(replies) else None
        self._replies = [] if callable(replies) else list(replies)
        self._delay = delay
        self._lock = threading.Lock()
        self._requests: list[ModelRequest] = []

    @property
    def requests(self) -> list[ModelRequest]:
        """The requests so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    def generate(self, request: ModelRequest) -> ModelReply:
        """See `Provider.generate`."""
        with self._lock:
            number = len(self._requests)
            self._requests.append(request)
        if self._delay:
            time.sleep(self._delay)
        if self._make is not None:
            scripted = self._make(request)
        elif number < len(self._replies):
            scripted = self._replies[number]
        else:
            raise ProviderError(f"the script has {len(self._replies)} replies, this is request {number + 1}")
        if isinstance(scripted, BaseException):
            raise scripted
        if isinstance(scripted, ModelReply):
            return scripted
        return ModelReply({"message": scripted} if isinstance(scripted, str) else scripted)

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """See `Provider.stream`."""
        reply = self.generate(request)
        return (yield from in_pieces(reply, size=self._size, pause=self._pause))
