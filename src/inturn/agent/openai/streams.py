"""Streams: an answer as it comes."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from inturn.agent.openai.answer import Answer
from inturn.agent.openai.api import Transcript
from inturn.agent.openai.errors import calling, garbled, reading, wrong_form
from inturn.agent.openai.timeouts import Timeouts, Watch
from inturn.errors import ProviderError

if TYPE_CHECKING:
    import openai


def hear(
    stream: openai.Stream[Any], transcript: Transcript, api: str, timeouts: Timeouts, asked_at: float
) -> Generator[str, None, Answer]:
    """Yield the text of the answer piece by piece and return the whole; closing it ends the call.

    `asked_at` is when the call began, by the monotonic clock.
    """
    with stream, Watch(stream.response, timeouts, asked_at) as watch:
        try:
            with calling(timeouts.told(streams=True)), reading(api):
                for event in _events(stream, api):
                    piece = transcript.take(event)
                    if piece is not None:
                        watch.begun()
                    if piece:
                        yield piece
                return transcript.answer()
        except ProviderError:
            watch.check()  # the time was up, and what happened then is the consequence
            raise


def _events(stream: openai.Stream[Any], api: str) -> Iterator[Any]:
    heard = False
    try:
        for event in stream:
            heard = True
            yield event
    except ValueError as error:  # the client does not wrap what json raises here
        raise garbled(error) from None
    if not heard and "text/event-stream" not in stream.response.headers.get("content-type", ""):
        raise wrong_form(api)
