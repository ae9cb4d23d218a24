"""Channel: how one kind of chat comes in by webhooks, and how replies go out."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from inturn.channels.change import Change
from inturn.channels.splitting import split_text
from inturn.errors import InvalidInputError
from inturn.session.state import SessionState


@dataclass(frozen=True, slots=True)
class Limits:
    """What the channel takes: `text` characters in one message, `body` bytes in one webhook."""

    text: int
    body: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """A webhook's HTTP request.

    `url` is the public one that the sender called. Header names are lower case; one that came several times
    has its values joined by commas.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; `InvalidInputError` for anything else."""
        try:
            value = json.loads(self.body.decode(), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"the body is not JSON ({type(error).__name__})") from None
        if not isinstance(value, dict):
            raise InvalidInputError(f"the body must be a JSON object, not {type(value).__name__}")
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    """What a webhook is answered at once; the reply to a message never goes this way."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A user's message as it came in.

    - `session_id` is the conversation: derived from what the platform calls it, never from the text.
    - `turn_id` is the platform's own ID of the event: the same delivered again is the same turn.
    - `address` is where the reply goes, a JSON object that only this channel reads; an empty one gets none.
    - `begins` is False for a message that is to the agent only if the conversation is: it is taken if there
      is such a session, and left alone if not.
    """

    session_id: str
    message: str
    turn_id: str
    address: Mapping[str, Any]
    user_id: str | None = None
    images: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    begins: bool = True


@dataclass(frozen=True, slots=True)
class Received:
    """What a webhook comes to: what to enqueue (perhaps nothing), and the answer once that is accepted.

    The changes are enqueued first, then the messages, in their order. `refused` makes the answer if one of
    the messages was refused for good, from words that tell its user why; without it that is `answer`, too,
    and `Channel.refused` tells the user.
    """

    messages: Sequence[Incoming] = ()
    answer: Answer = field(default_factory=Answer)
    changes: Sequence[Change] = ()
    refused: Callable[[str], Answer] | None = None


class Channel(ABC):
    """One channel. It is used by many threads at once; make clients with their first use, after a fork.

    A webhook runs `verify`, then `receive`, then the turns are enqueued, then it is answered. A reply is
    split by `parts` and sent part by part, in order, one conversation at a time.
    """

    name: ClassVar[str]
    """The channel's name, of small letters, digits, `-` and `_`: in paths (`POST /channels/<name>`), in
    deliveries and in logs."""
    limits: ClassVar[Limits]
    repeats_unknown: ClassVar[bool] = False
    """Whether a send whose outcome is not known is made again. It may then arrive twice, and is marked; if
    not, it may never arrive, and is marked as well."""
    final: ClassVar[Mapping[str, str]] = {}
    """Headers by which the platform knows that a webhook was refused for good, and does not send it again."""

    @abstractmethod
    def verify(self, request: Request) -> None:
        """Return if the platform itself has sent this just now, else raise `ForgedRequestError`.

        It looks at signature and time, over the raw body, before anything is parsed.
        """

    @abstractmethod
    def receive(self, request: Request) -> Received:
        """Read a request that was verified. `InvalidInputError` for one that has not the platform's form.

        What is no user's message (a bot's own, an edit, a receipt) comes to no messages.
        """

    @abstractmethod
    def send(self, address: Mapping[str, Any], text: str) -> str:
        """Send one part of a reply; returns the platform's ID of it, or "". It ends within a minute.

        Raises `DeliveryUnavailableError` if it is certain that nothing was sent and it may be tried again,
        `DeliveryRefusedError` if it was refused for good, and `DeliveryUnknownError` if nobody can tell (the
        connection broke after the request had gone out). What else it raises counts as unknown. An error's
        message is logged and kept: neither text nor address may be in it.
        """

    def parts(self, text: str) -> list[str]:
        """A reply as the texts to send, in order; each is what `send` gets.

        The same for the same text, each time: after a crash it is made again, and counted on.
        """
        return split_text(text, self.limits.text)

    def may_send(
        self,
        session: SessionState,  # noqa: ARG002
        waiting: Sequence[str] = (),  # noqa: ARG002
    ) -> str | None:
        """Why nothing may be sent to this conversation now, in words for the log; None if it may.

        It is asked right before each part. `waiting` are the IDs of the session's turns that are not
        committed yet.
        """
        return None

    def accepted(self, address: Mapping[str, Any]) -> None:  # noqa: B027
        """Called once a message was accepted and its webhook answered: to show, say, that the bot is at work.

        It may ask the platform and take its time. It may also never be called, and what it raises is logged.
        """

    def refused(self, message: Incoming, words: str) -> None:  # noqa: B027
        """Called once a message was refused for good, and its webhook answered: to tell the user.

        `words` say why, in English. Otherwise as `accepted`.
        """


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
