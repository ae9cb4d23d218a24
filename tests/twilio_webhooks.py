"""Twilio's webhooks, signed by its own signer, and what SmsChannel makes of them."""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from inturn.channels import Received, Request
from inturn.channels.sms import SmsChannel
from inturn.ids import create_turn_id
from inturn.settings import load_settings
from inturn.turns.payloads import respond_payload, save_session_payload


def validator(token: str) -> Any:
    """Twilio's own signer."""
    return importlib.import_module("twilio.request_validator").RequestValidator(token)


URL = "https://chat.example.com/channels/sms"
TOKEN = "a-token"
FORM = "application/x-www-form-urlencoded"
OURS, USERS = "+15005550006", "+15551230000"
SESSION = f"sms:{OURS}:{USERS}"
SID = "SM" + "0f" * 16
SIGNER = validator(TOKEN)
SETTINGS = load_settings()
CHANNEL = SmsChannel("AC1", TOKEN)

Pairs = Iterable[tuple[str, str]]


class Repeated(dict[str, list[str]]):
    """Fields as the signer reads those that come several times."""

    def getall(self, name: str) -> list[str]:
        return self[name]


def signed(pairs: Pairs, *, url: str = URL, token: str = TOKEN, **headers: str) -> Request:
    """A form as Twilio sends it."""
    pairs = list(pairs)
    fields = Repeated()
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    signature = validator(token).compute_signature(url, fields)
    found = {"content-type": FORM, "x-twilio-signature": signature, **headers}
    return Request("POST", url, found, urlencode(pairs).encode())


def signed_json(body: str | bytes, *, url: str = URL) -> Request:
    """A JSON body as Twilio sends it: with its hash in the URL, which is signed."""
    raw = body.encode() if isinstance(body, str) else body
    url = f"{url}?bodySHA256={SIGNER.compute_hash(raw.decode(errors='replace'))}"
    headers = {
        "content-type": "application/json",
        "x-twilio-signature": SIGNER.compute_signature(url, {}),
    }
    return Request("POST", url, headers, raw)


def text(body: str = "hello", **fields: str) -> dict[str, str]:
    """A user's message, with most of what Twilio sends."""
    return {
        "ToCountry": "US",
        "ToState": "",
        "SmsMessageSid": SID,
        "NumMedia": "0",
        "ToCity": "",
        "FromZip": "94949",
        "SmsSid": SID,
        "SmsStatus": "received",
        "Body": body,
        "FromCountry": "US",
        "To": OURS,
        "NumSegments": "1",
        "MessageSid": SID,
        "AccountSid": "AC1",
        "From": USERS,
        "ApiVersion": "2010-04-01",
        **fields,
    }


def status(status: str = "delivered", **fields: str) -> dict[str, str]:
    """A report of what became of a message of ours."""
    return {
        "SmsSid": SID,
        "SmsStatus": status,
        "MessageStatus": status,
        "To": USERS,
        "MessageSid": SID,
        "AccountSid": "AC1",
        "From": OURS,
        "ApiVersion": "2010-04-01",
        **fields,
    }


def receive(fields: Mapping[str, str], channel: SmsChannel = CHANNEL) -> Received:
    """What comes of a form that Twilio has signed, once it is what may be enqueued."""
    request = signed(fields.items())
    channel.verify(request)
    return checked(channel.receive(request))


def checked(received: Received) -> Received:
    """The same, if all of it may be enqueued."""
    for change in received.changes:
        create_turn_id(change.session_id, change.turn_id)
        save_session_payload(SETTINGS, change.session_id, metadata=change.metadata, user_id=change.user_id)
    for message in received.messages:
        create_turn_id(message.session_id, message.turn_id)
        respond_payload(
            SETTINGS,
            message.session_id,
            message.message,
            user_id=message.user_id,
            channel="sms",
            address=message.address,
            metadata=message.metadata,
            images=message.images,
        )
    assert received.answer.content_type == "text/xml"
    assert ET.fromstring(received.answer.body).tag == "Response"
    return received


def answered(received: Received) -> list[str | None]:
    """The messages that the webhook's answer has Twilio send."""
    return [message.text for message in ET.fromstring(received.answer.body)]
