"""Timeouts: how long a call may take, and the watch that ends a stream which takes longer."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from inturn.errors import ConfigurationError, ProviderUnavailableError

if TYPE_CHECKING:
    import httpx2
    import openai


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The limits of one call, in seconds; see `OpenAIProvider`."""

    connect_timeout: float
    first_token_timeout: float
    timeout: float

    def __post_init__(self) -> None:
        for name, seconds in asdict(self).items():
            if not 0 < seconds < math.inf:
                raise ConfigurationError(
                    f"{name} of OpenAIProvider must be more than 0 seconds and not endless, not {seconds!r}"
                )

    @property
    def until_output(self) -> float:
        """How long a stream may take to begin with its output."""
        return min(self.first_token_timeout, self.timeout)

    def of_client(self, *, streams: bool) -> openai.Timeout:
        """The time-outs as the client knows them; those of reading are silences."""
        import openai

        silence = self.until_output if streams else self.timeout
        return openai.Timeout(self.timeout, connect=self.connect_timeout, read=silence)

    def told(self, *, streams: bool) -> dict[str, str]:
        """What the client's time-outs mean, by the names of their classes."""
        return {
            "ConnectTimeout": f"the provider took no connection within {self.connect_timeout:g} seconds "
            "(connect_timeout)",
            "ReadTimeout": self.unbegun
            if streams
            else f"the provider was silent for {self.timeout:g} seconds (timeout)",
        }

    @property
    def unbegun(self) -> str:
        """What to say of a stream without any output."""
        name = "timeout" if self.timeout <= self.first_token_timeout else "first_token_timeout"
        return f"the model did not begin to answer within {self.until_output:g} seconds ({name})"

    @property
    def unfinished(self) -> str:
        """What to say of a stream that is not done in time."""
        return f"the answer was not complete within {self.timeout:g} seconds (timeout)"


class Watch:
    """Ends the stream of `response` when it takes longer than it may, whatever its server does meanwhile.

    A time-out of reading is about silence alone, and a server can be wordy without saying anything (comments
    that keep the connection alive, for example); hence a clock of our own, which shuts the connection down:
    that wakes whoever is reading from it.
    """

    def __init__(self, response: httpx2.Response, timeouts: Timeouts, asked_at: float) -> None:
        self._response = response
        self._timeouts = timeouts
        self._asked_at = asked_at
        self._expired: str | None = None
        self._has_begun = False
        # The silence that was allowed until the headers came may be shorter than a pause may be from now on.
        response.request.extensions["timeout"]["read"] = timeouts.timeout
        self._timer = self._set(timeouts.until_output, timeouts.unbegun)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()

    def begun(self) -> None:
        """The model has begun to answer: from now on only the time of the whole call counts."""
        if not self._has_begun:
            self._has_begun = True
            self._timer.cancel()
            self._timer = self._set(self._timeouts.timeout, self._timeouts.unfinished)

    def check(self) -> None:
        """Raise `ProviderUnavailableError` if the time is up."""
        if self._expired is not None:
            raise ProviderUnavailableError(self._expired) from None

    def _set(self, seconds: float, told: str) -> threading.Timer:
        left = max(0.0, self._asked_at + seconds - time.monotonic())
        timer = threading.Timer(left, self._expire, [told])
        timer.daemon = True
        timer.start()
        return timer

    def _expire(self, told: str) -> None:
        if self._response.is_closed:
            return  # the connection may serve another call by now
        self._expired = told
        connection = self._response.extensions["network_stream"].get_extra_info("socket")
        with contextlib.suppress(OSError):
            # Not SSLSocket's own method, which takes the TLS layer away from under the reader.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
