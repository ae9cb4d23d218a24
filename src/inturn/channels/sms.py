"""SmsChannel: conversations by text message, by Twilio's webhooks and its Messages API."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from inturn.channels.channel import Answer, Channel, Limits, Received, Request
from inturn.channels.sms_driver import twilio
from inturn.channels.sms_events import (
    OPTED_OUT,
    STOPPING,
    opt_out,
    read_command,
    read_message,
    read_status,
)
from inturn.channels.sms_form import read_fields, signed_part
from inturn.channels.sms_text import count_characters, count_segments
from inturn.channels.sms_words import STOP_WORDS
from inturn.channels.splitting import split_text
from inturn.errors import ConfigurationError, DeliveryRefusedError, ForgedRequestError
from inturn.session.state import SessionState
from inturn.settings import Settings
from inturn.values import to_text

ANSWERS: Mapping[str, str] = {
    "help": "You are texting with an automatic assistant. Reply STOP to receive no more messages, "
    "START to receive them again."
}
"""What is answered to commands: `help`, `stop`, `start`. STOP and START are confirmed by Twilio itself."""


class SmsChannel(Channel):
    """The phone numbers of one Twilio account; each of them and a user are a conversation.

    - `public_url` is where Twilio reaches us, to report what became of a message; None: it does not.
    - `max_segments` is the most SMS that one part of a reply may become, each of which is charged. The
      default lets 1,600 characters of GSM-7 through, which is what Twilio takes, and 737 of others.
    - `timeout` is the longest silence of Twilio, in seconds. Its own is shorter than the default, so that it
      is Twilio that says so when it gives up.
    - `stop_words` are those after which nothing more is sent, in capitals; they should be those that Twilio
      goes by. `answers` are what commands are answered with; one that is left out is left to Twilio.
    - `public_media`: whether anybody may fetch the pictures of messages. Only accounts from before August
      2023 can have it so. If not, no model's provider could, and they are in the message's metadata instead.

    Raises `MissingDriverError` if `twilio` is not installed, `ConfigurationError` for a value that is none.

    A send whose outcome is not known is not made again: Twilio knows no key by which it would drop the second
    of two, and each is charged.
    """

    name: ClassVar[str] = "sms"
    limits: ClassVar[Limits] = Limits(text=1_600)

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        *,
        base_url: str = "https://api.twilio.com",
        public_url: str | None = None,
        max_segments: int = 11,
        timeout: float = 30.0,
        stop_words: Collection[str] = STOP_WORDS,
        answers: Mapping[str, str] = ANSWERS,
        public_media: bool = False,
    ) -> None:
        if max_segments < 1:
            raise ConfigurationError(f"max_segments of SmsChannel must be at least 1, not {max_segments}")
        if urlsplit(base_url).scheme not in ("http", "https"):
            raise ConfigurationError(
                "INTURN_TWILIO_BASE_URL must be an http(s) URL, such as https://api.twilio.com"
            )
        self._validator = twilio("request_validator").RequestValidator(auth_token)
        self._account = (account_sid, auth_token, base_url, timeout)
        self._callback = f"{public_url.rstrip('/')}/channels/{self.name}" if public_url else None
        self._max_segments = max_segments
        self._stop_words = stop_words
        self._answers = answers
        self._public_media = public_media

    def verify(self, request: Request) -> None:
        """Return if Twilio has signed the request with the account's token, for the URL that it calls.

        Twilio signs no time. A request that is sent again by whoever has recorded it has the same
        `MessageSid`, and comes to the same turn.
        """
        signature = request.headers.get("x-twilio-signature", "")
        if not signature:
            raise ForgedRequestError("the request has no X-Twilio-Signature")
        try:
            signed = signed_part(request)
            if isinstance(signed, str) and "bodySHA256" not in parse_qs(urlsplit(request.url).query):
                raise ForgedRequestError("a JSON body is signed by bodySHA256 in the URL, which is not there")
            is_valid = self._validator.validate(request.url, signed, signature)
        except ValueError as error:  # a body or a URL that cannot be read
            raise ForgedRequestError(f"the request is none of Twilio's ({type(error).__name__})") from None
        if not is_valid:
            raise ForgedRequestError(
                "the signature is not Twilio's; if every request is refused, INTURN_PUBLIC_URL is not the "
                "address that Twilio calls, or TWILIO_AUTH_TOKEN is not the account's primary token"
            )

    def receive(self, request: Request) -> Received:
        """Read a user's message, or a report of what became of one of ours.

        STOP and START come to a change of the session, HELP to an answer, and none of them to a message. YES
        comes to both, as it may be either.
        """
        fields = read_fields(request)
        if "MessageStatus" in fields:
            return Received(changes=read_status(fields), answer=_twiml())
        command = read_command(fields, self._stop_words)
        if command is None:
            return Received(read_message(fields, public_media=self._public_media), _twiml())
        # Advanced Opt-Out has answered it already.
        text = None if fields.get("OptOutType") else self._answers.get(command)
        messages = read_message(fields, public_media=self._public_media) if command == "yes" else []
        return Received(messages, _twiml(text), opt_out(fields, command))

    def may_send(self, session: SessionState, waiting: Sequence[str] = ()) -> str | None:
        """Why nothing may be sent to this user now, or None: `opted out` from STOP until START.

        `waiting` are the IDs of the session's turns that are not committed yet: a STOP among them counts.
        """
        stops = any(turn_id.endswith(STOPPING) for turn_id in waiting)
        return "opted out" if stops or session.metadata.get(OPTED_OUT) else None

    def parts(self, text: str) -> list[str]:
        """A reply as the texts to send, each of which Twilio takes and is at most `max_segments` long."""
        # Not by a size: two limits count differently, and the segments jump where a text becomes UCS-2.
        return split_text(text, 0, lambda part: 0 if self._fits(part) else 1)

    def send(self, address: Mapping[str, Any], text: str) -> str:
        """Send one part, and return its SID; see `Channel.send` for what it raises.

        The SID means that Twilio has taken the message. What becomes of it is told later, by a webhook.
        """
        from inturn.channels.sms_sending import send_message

        wanted = {"to": "to", "from_": "from", "messaging_service_sid": "service"}
        message = {name: address[key] for name, key in wanted.items() if key in address}
        if not message.keys() >= {"to", "from_"} or not all(
            isinstance(value, str) for value in message.values()
        ):
            raise DeliveryRefusedError("the reply's address must have `to` and `from`, as strings")
        try:
            message["body"] = to_text(text, "the reply")
        except ValueError as error:
            raise DeliveryRefusedError(str(error)) from None
        if self._callback is not None:
            message["status_callback"] = self._callback
        return send_message(*self._account, message)

    def _fits(self, part: str) -> bool:
        return (
            len(part) <= self.limits.text  # cheap, for the long rest of a long text
            and count_characters(part) <= self.limits.text
            and count_segments(part) <= self._max_segments
        )


def from_settings(settings: Settings) -> SmsChannel | None:
    """Make the channel of the settings; None if neither the account nor its token is set.

    Raises `ConfigurationError` if only one of them is.
    """
    token = settings.twilio_auth_token.get_secret_value() if settings.twilio_auth_token else ""
    found = {
        "TWILIO_ACCOUNT_SID": (settings.twilio_account_sid or "").strip(),
        "TWILIO_AUTH_TOKEN": token.strip(),
    }
    missing = [name for name, value in found.items() if not value]
    if len(missing) == len(found):
        return None
    if missing:
        raise ConfigurationError(f"{missing[0]} is not set; set both {' and '.join(found)}, or neither")
    return SmsChannel(
        found["TWILIO_ACCOUNT_SID"],
        found["TWILIO_AUTH_TOKEN"],
        base_url=settings.twilio_base_url,
        public_url=settings.public_url,
    )


def _twiml(text: str | None = None) -> Answer:
    message = "" if text is None else f"<Message>{escape(text)}</Message>"
    return Answer(
        body=f'<?xml version="1.0" encoding="UTF-8"?><Response>{message}</Response>', content_type="text/xml"
    )
