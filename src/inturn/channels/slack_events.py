"""Events of Slack: which of them are a user's message to the bot, and what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from inturn.channels.channel import Incoming
from inturn.channels.slack_ids import slack_id, slack_timestamp
from inturn.channels.slack_text import plain_text
from inturn.errors import InvalidInputError
from inturn.values import to_text

_WRITTEN_BY_USERS = (None, "file_share", "me_message", "thread_broadcast")
"""The subtypes of messages that users write; the others tell of edits, deletions, joins and bots."""
_SLACKBOT = "USLACKBOT"


def read_event(envelope: Mapping[str, Any]) -> Incoming | None:
    """The message that an event brings to the bot, or None. `InvalidInputError` if it has not Slack's form.

    To the bot are:

    - every message in its direct messages;
    - elsewhere, a message that mentions it, and those in threads in which it takes part: that it has begun
      itself, or in which it was mentioned before.

    **The conversation** is the thread, and a message outside of threads begins one; only direct messages
    outside of threads are one conversation. The reply goes there.

    **The turn's ID** is the channel and the message's `ts`, which together name the message, not the
    `event_id`, which names a delivery: a mention arrives both as `app_mention` and as `message`, with two
    event IDs, in any order, and often in two processes at once. Both are read alike, so it does not matter
    which comes first, or whether the app has subscribed to both; and a delivery that is repeated has the same
    `ts`. Edits and deletions come to nothing.

    **Files** are named in `metadata["files"]`, and in the message if it has no text. The model does not see
    them: loading them takes the bot's token.
    """
    event = envelope.get("event")
    if not isinstance(event, dict):
        raise InvalidInputError(f"Slack's event must be an object, not {type(event).__name__}")
    if not _is_message_of_user(event):
        return None
    bots = _own_users(envelope)
    user = slack_id(event.get("user"), "user")
    if user in bots or user == _SLACKBOT:
        return None

    team = slack_id(envelope.get("team_id"), "team_id")
    channel = slack_id(event.get("channel"), "channel")
    message_ts = slack_timestamp(event.get("ts"), "ts")
    is_direct = event.get("channel_type") == "im" or channel.startswith("D")
    in_thread = event.get("thread_ts") is not None
    text = _text(event.get("text"))
    is_mention = event["type"] == "app_mention" or any(
        f"<@{bot}{end}" in text for bot in bots for end in ">|"
    )
    is_answer = in_thread and event.get("parent_user_id") in bots
    if not (is_direct or is_mention or in_thread):
        return None

    files = _names(event.get("files"))
    message = _message(text, bots, files)
    if not message:
        return None
    conversation, address = ["slack", team, channel], {"channel": channel}
    if in_thread or not is_direct:
        thread = slack_timestamp(event["thread_ts"], "thread_ts") if in_thread else message_ts
        conversation.append(thread)
        address["thread_ts"] = thread
    return Incoming(
        session_id=":".join(conversation),
        message=to_text(message, "message"),
        turn_id=f"{channel}:{message_ts}",
        address=address,
        user_id=f"slack:{team}:{user}",
        metadata={"files": files} if files else {},
        begins=is_direct or is_mention or is_answer,
    )


def _is_message_of_user(event: Mapping[str, Any]) -> bool:
    return (
        event.get("type") in ("message", "app_mention")
        and event.get("subtype") in _WRITTEN_BY_USERS
        # What is hidden tells that a thread has got an answer; Slack forgets its subtype. An edit is told
        # by a subtype as a message, but as a mention by this.
        and not (event.get("bot_id") or event.get("hidden") or event.get("edited"))
    )


def _own_users(envelope: Mapping[str, Any]) -> list[str]:
    """The users that this app is as a bot; an app that may also act for its users has their IDs there too."""
    authorizations = envelope.get("authorizations")
    if not isinstance(authorizations, list):
        return []
    return [
        slack_id(each.get("user_id"), "user_id of an authorization")
        for each in authorizations
        if isinstance(each, dict) and each.get("is_bot") is True
    ]


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInputError(f"Slack's text must be a string, not {type(value).__name__}")
    return value


def _message(text: str, bots: Sequence[str], files: Sequence[str]) -> str:
    """What is said to the bot: without its name in front, unless nothing else is said."""
    called = re.match(rf"\s*<@(?:{'|'.join(bots)})(?:\|[^<>]*)?>[\s,:]*", text) if bots else None
    said = plain_text(text[called.end() :] if called else text).strip()
    return said or ", ".join(f"[{name}]" for name in files) or plain_text(text).strip()


def _names(files: object) -> list[str]:
    if not isinstance(files, list):
        return []
    names = [each.get("name") for each in files if isinstance(each, dict)]
    return [to_text(name, "a file's name") for name in names if isinstance(name, str) and name]
