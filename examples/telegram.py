"""Telegram as a channel: `INTURN_CHANNELS=examples.telegram:channel`; docs/channels.md explains it."""

import hmac
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, ClassVar

from inturn import errors
from inturn.channels import Channel, Incoming, Limits, Received, Request, split_text
from inturn.settings import Settings


class Telegram(Channel):
    """One bot; `secret` is the secret token that its webhook was set with."""

    name: ClassVar[str] = "telegram"
    limits: ClassVar[Limits] = Limits(text=4096)

    def __init__(self, token: str, secret: str, server: str) -> None:
        self._url = f"{server}/bot{token}/sendMessage"
        self._secret = secret.encode()

    def verify(self, request: Request) -> None:
        """The secret must be in its header."""
        shown = request.headers.get("x-telegram-bot-api-secret-token", "")
        if not hmac.compare_digest(shown.encode(), self._secret):
            raise errors.ForgedRequestError("the secret token is not the one that the webhook was set with")

    def receive(self, request: Request) -> Received:
        """A text that somebody sends is a message; all other updates come to none."""
        update = request.json()
        if "update_id" not in update:
            raise errors.InvalidInputError("an update of Telegram has an update_id, this has none")
        match update.get("message"):
            case {"text": str(text), "chat": {"id": int(chat)}, "from": {"id": int(user)}}:
                incoming = Incoming(
                    session_id=f"telegram:{chat}",
                    message=text,
                    turn_id=str(update["update_id"]),
                    address={"chat_id": chat},
                    user_id=f"telegram:{user}",
                )
                return Received([incoming])
        return Received()

    def parts(self, text: str) -> list[str]:
        """Telegram counts in units of UTF-16."""
        return split_text(text, self.limits.text, lambda part: len(part.encode("utf-16-le")) // 2)

    def send(self, address: Mapping[str, Any], text: str) -> str:
        """Send one part. What is raised besides, as for an answer of 5xx, counts as unknown."""
        body = json.dumps({**address, "text": text}).encode()
        call = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(call, timeout=30) as answer:  # noqa: S310
                return str(json.load(answer)["result"]["message_id"])
        except urllib.error.HTTPError as error:
            if error.code == 429:
                wait = json.load(error)["parameters"]["retry_after"]
                raise errors.DeliveryUnavailableError("too many messages", retry_after=wait) from None
            if error.code < 500:
                raise errors.DeliveryRefusedError(f"Telegram answered {error.code}") from None
            raise
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionRefusedError | socket.gaierror):
                raise errors.DeliveryUnavailableError("Telegram cannot be reached") from None
            raise


def channel(_: Settings) -> Telegram:
    """The bot that the environment names."""
    server = os.environ.get("TELEGRAM_SERVER", "https://api.telegram.org")
    return Telegram(os.environ["TELEGRAM_TOKEN"], os.environ["TELEGRAM_SECRET"], server)
