"""SlackChannel: conversations in Slack, by its Events API, slash commands and `chat.postMessage`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl

from inturn.channels.channel import Answer, Channel, Incoming, Limits, Received, Request
from inturn.channels.slack_commands import read_command
from inturn.channels.slack_errors import asking
from inturn.channels.slack_events import read_event
from inturn.channels.slack_text import escape, escaped_length
from inturn.channels.splitting import split_text
from inturn.errors import (
    ConfigurationError,
    DeliveryRefusedError,
    ForgedRequestError,
    InvalidInputError,
    MissingDriverError,
)
from inturn.settings import Settings
from inturn.values import to_text

if TYPE_CHECKING:
    from slack_sdk import WebClient

_WEB = re.compile(r"https?://[^/]")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"v0=[0-9a-f]{64}")
_MOST_FIELDS = 100
# In no hierarchy, so no configuration turns it on: at DEBUG the client logs what is said, and what else it
# logs is in our errors.
_SILENCE = logging.Logger("slack_sdk", logging.CRITICAL + 1)


class SlackChannel(Channel):
    """One Slack workspace's bot.

    `timeout` is the seconds to wait for Slack, at each step of a request. Raises `MissingDriverError` if
    `slack_sdk` is not installed, `ConfigurationError` for a `base_url` that is none. What is answered, and
    which conversation it belongs to, says `read_event`.

    A send whose outcome is not known is not made again: Slack knows no key by which it would drop the second
    of two, and asking for the last messages does not tell whether one is still on its way.
    """

    name: ClassVar[str] = "slack"
    limits: ClassVar[Limits] = Limits(text=4_000)
    """Slack cuts a text off after 40,000 characters, and asks for texts of at most 4,000. They are counted as
    they are sent, with `<`, `>` and `&` escaped."""
    final: ClassVar[Mapping[str, str]] = {"X-Slack-No-Retry": "1"}

    def __init__(
        self,
        bot_token: str,
        signing_secret: str,
        *,
        base_url: str = "https://slack.com/api/",
        timeout: int = 10,
    ) -> None:
        try:
            from slack_sdk.signature import SignatureVerifier
        except ModuleNotFoundError as error:
            raise MissingDriverError(
                "SlackChannel needs slack_sdk, which is not installed: pip install 'inturn[slack]'"
            ) from error
        if not _WEB.match(base_url):
            raise ConfigurationError(
                "INTURN_SLACK_BASE_URL must be the URL of a web server, such as https://slack.com/api/"
            )
        self._verifier = SignatureVerifier(signing_secret)
        self._bot_token = bot_token
        self._base_url = base_url
        self._timeout = timeout

    def verify(self, request: Request) -> None:
        """Return if Slack has signed the request within five minutes of now, before or after."""
        timestamp = request.headers.get("x-slack-request-timestamp", "")
        signature = request.headers.get("x-slack-signature", "")
        if not (_TIMESTAMP.fullmatch(timestamp) and _SIGNATURE.fullmatch(signature)):
            raise ForgedRequestError("the request has not Slack's signature and time in its headers")
        try:
            is_valid = self._verifier.is_valid(request.body, timestamp, signature)
        except UnicodeDecodeError:  # the verifier signs text
            is_valid = False
        if not is_valid:
            raise ForgedRequestError(
                "the signature is not Slack's, or not of the last five minutes; if every request is refused, "
                "check SLACK_SIGNING_SECRET and this machine's clock"
            )

    def receive(self, request: Request) -> Received:
        """Read an event, or a slash command; interactions come to nothing.

        A delivery that Slack calls a retry (`X-Slack-Retry-Num`) is read like any other: the first may never
        have come in, and if it has, this is the same turn.
        """
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type == "application/json":
            return _receive_json(request)
        if content_type == "application/x-www-form-urlencoded":
            return _receive_form(request)
        raise InvalidInputError("a request of Slack must be JSON or a form; check its Content-Type")

    def accepted(self, address: Mapping[str, Any]) -> None:
        """Show in the thread that the bot is at work, until its reply comes or two minutes have passed.

        Outside of threads Slack has no such sign, and this does nothing. It raises what `send` raises.
        """
        if "thread_ts" in address:
            with asking():
                self._client.assistant_threads_setStatus(
                    channel_id=address["channel"], thread_ts=address["thread_ts"], status="is thinking…"
                )

    def refused(self, message: Incoming, words: str) -> None:
        """Tell its user alone, where they have written it. It raises what `send` raises."""
        with asking():
            self._client.chat_postEphemeral(
                channel=message.address["channel"],
                user=(message.user_id or "").rpartition(":")[2],
                thread_ts=message.address.get("thread_ts"),
                text=escape(words),
                parse="none",
                link_names=False,
            )

    def parts(self, text: str) -> list[str]:
        """A reply as the texts to send, each within the limit once it is escaped."""
        return split_text(text, self.limits.text, escaped_length)

    def send(self, address: Mapping[str, Any], text: str) -> str:
        """Send one part, and return its `ts`; see `Channel.send` for what it raises.

        The text's `*bold*` and `code` are shown as such, but nothing in it becomes a mention or a link: the
        bot speaks for whoever has talked to the model, and must not ring or lead astray a whole channel.
        """
        channel = address.get("channel")
        if not isinstance(channel, str):
            raise DeliveryRefusedError("the reply's address names no channel of Slack")
        with asking():
            response = self._client.chat_postMessage(
                channel=channel,
                text=escape(text),
                thread_ts=address.get("thread_ts"),
                parse="none",
                link_names=False,
                unfurl_links=False,
                unfurl_media=False,
            )
            return str(response.get("ts") or "")

    @cached_property
    def _client(self) -> WebClient:
        # It holds no connection, so threads may share it, and two that come first at once may both make one.
        from slack_sdk import WebClient

        return WebClient(
            self._bot_token,
            base_url=self._base_url,
            timeout=self._timeout,
            logger=_SILENCE,
            # By default it repeats a request whose connection broke: such a message may have arrived.
            retry_handlers=[],
        )


def from_settings(settings: Settings) -> SlackChannel | None:
    """Make the channel of the settings; None if neither the token nor the secret is set.

    Raises `ConfigurationError` if only one of them is.
    """
    token = settings.slack_bot_token.get_secret_value() if settings.slack_bot_token else ""
    secret = settings.slack_signing_secret.get_secret_value() if settings.slack_signing_secret else ""
    found = {"SLACK_BOT_TOKEN": token.strip(), "SLACK_SIGNING_SECRET": secret.strip()}
    missing = [name for name, value in found.items() if not value]
    if len(missing) == len(found):
        return None
    if missing:
        raise ConfigurationError(f"{missing[0]} is not set; set both {' and '.join(found)}, or neither")
    return SlackChannel(
        found["SLACK_BOT_TOKEN"], found["SLACK_SIGNING_SECRET"], base_url=settings.slack_base_url
    )


def _receive_json(request: Request) -> Received:
    envelope = request.json()
    kind = envelope.get("type")
    if kind == "url_verification":
        challenge = envelope.get("challenge")
        if not isinstance(challenge, str):
            raise InvalidInputError("Slack's challenge must be a string")
        return Received(answer=Answer(body=to_text(challenge, "challenge")))
    if kind == "event_callback":
        message = read_event(envelope)
        return Received([message] if message else [])
    if not isinstance(kind, str):
        raise InvalidInputError(f"a request of Slack must have a type, not {type(kind).__name__}")
    return Received()


def _receive_form(request: Request) -> Received:
    try:
        pairs = parse_qsl(
            request.body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError as error:
        raise InvalidInputError(f"the request's body is no form ({type(error).__name__})") from None
    form = dict(pairs)
    if "command" in form and "ssl_check" not in form:
        return read_command(form)
    if "payload" in form or "ssl_check" in form:
        return Received()
    raise InvalidInputError("the form is neither a slash command nor an interaction")
