"""Events: a user's message, a command, a report of what became of a reply, read from Twilio's webhooks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from inturn.channels.change import Change
from inturn.channels.channel import Incoming
from inturn.channels.sms_words import Command, find_command
from inturn.errors import InvalidInputError
from inturn.ids import check_id

OPTED_OUT = "sms_opt_out"
"""The session's metadata: true after STOP, false after START."""
DELIVERED = "sms_delivered"
"""The session's metadata: `{"id": SID}` of the last text message that has arrived."""
UNDELIVERED = "sms_undelivered"
"""The session's metadata: `{"id": SID, "status": ..., "error": code}` of the last that has not."""

STOPPING = ":stop"
"""How the turn ID of a STOP ends."""

MOST_MEDIA = 10
"""Twilio's limit for one message."""

_KINDS: dict[str, Command] = {"STOP": "stop", "START": "start", "HELP": "help"}


@dataclass(frozen=True, slots=True)
class Parties:
    """Who texts with whom: our number, or another sender that Twilio knows, and the user's."""

    ours: str
    users: str

    @property
    def session_id(self) -> str:
        """The conversation of the two."""
        return check_id(f"sms:{self.ours}:{self.users}")

    @property
    def user_id(self) -> str:
        """The user, whichever of our numbers they text to."""
        return check_id(f"sms:{self.users}", "user ID")

    def change(self, turn_id: str, metadata: Mapping[str, Any]) -> Change:
        """A change of their session."""
        return Change(
            session_id=self.session_id,
            turn_id=check_id(turn_id, "turn ID"),
            metadata=metadata,
            user_id=self.user_id,
        )


def read_command(fields: Mapping[str, str], stop_words: Collection[str]) -> Command | None:
    """The command that a user's message is, by Twilio's own word for it (Advanced Opt-Out) or by its text."""
    command = find_command(fields.get("Body", ""), stop_words)
    kind = _KINDS.get(fields.get("OptOutType", ""))
    # Twilio takes a plain "yes" for START; it is an answer to the agent all the same.
    return command if kind is None or (kind, command) == ("start", "yes") else kind


def opt_out(fields: Mapping[str, str], command: Command) -> list[Change]:
    """What a command changes: whether anything may be sent to this user; nothing for `help`."""
    if command == "help":
        return []
    stop = command == "stop"
    turn_id = _sid(fields) + (STOPPING if stop else ":start")
    return [_parties(fields, ours="To", users="From").change(turn_id, {OPTED_OUT: stop})]


def read_message(fields: Mapping[str, str], *, public_media: bool) -> list[Incoming]:
    """A user's message, or none if it holds nothing.

    Its address has the sender that the user wrote to, and its Messaging Service, if it belongs to one.
    """
    parties = _parties(fields, ours="To", users="From")
    media = _media(fields)
    body = fields.get("Body", "")
    pictures = [each for each in media if each["content_type"].lower().startswith("image/")]
    if not body.strip():
        if not media:
            return []
        body = "[image]" if pictures else "[attachment]"
    shown = [each for each in pictures if public_media and each["url"].startswith("https://")]
    kept = [each for each in media if each not in shown]
    address = {"to": parties.users, "from": parties.ours}
    if service := fields.get("MessagingServiceSid"):
        address["service"] = service
    return [
        Incoming(
            session_id=parties.session_id,
            message=body,
            turn_id=_sid(fields),
            address=address,
            user_id=parties.user_id,
            images=[each["url"] for each in shown],
            metadata={"media": kept} if kept else {},
        )
    ]


def read_status(fields: Mapping[str, str]) -> list[Change]:
    """What became of a text message of ours: a change once that is settled, and none on its way there."""
    status = fields["MessageStatus"]
    if status not in ("delivered", "undelivered", "failed"):
        return []
    sid = _sid(fields)
    told = {"id": sid}
    if status != "delivered":
        told["status"] = status
        if (code := fields.get("ErrorCode", "")).isdecimal() and len(code) < 10:
            told["error"] = code
    parties = _parties(fields, ours="From", users="To")
    return [parties.change(f"{sid}:{status}", {DELIVERED if status == "delivered" else UNDELIVERED: told})]


def _parties(fields: Mapping[str, str], *, ours: str, users: str) -> Parties:
    return Parties(_required(fields, ours), _required(fields, users))


def _sid(fields: Mapping[str, str]) -> str:
    return check_id(_required(fields, "MessageSid"), "MessageSid")


def _required(fields: Mapping[str, str], name: str) -> str:
    if not (value := fields.get(name, "").strip()):
        raise InvalidInputError(f"a webhook of Twilio's messages has {name}, this one has not")
    return value


def _media(fields: Mapping[str, str]) -> list[dict[str, str]]:
    found = []
    for number in range(MOST_MEDIA):
        if url := fields.get(f"MediaUrl{number}"):
            found.append({"url": url, "content_type": fields.get(f"MediaContentType{number}", "")})
    return found
