"""Slash commands of Slack, which are a user's message too, and are answered at once."""

from __future__ import annotations

import json
from collections.abc import Mapping

from inturn.channels.channel import Answer, Incoming, Received
from inturn.channels.slack_ids import slack_id, slack_trigger
from inturn.channels.slack_text import plain_text
from inturn.values import to_text

_ACCEPTED = "One moment, the answer comes here as a message."
_EMPTY = "Write your message after the command, in the same line."


def read_command(form: Mapping[str, str]) -> Received:
    """A slash command as a message. `InvalidInputError` if it has not Slack's form.

    A user's commands in a channel are one conversation. Slack shows the answer, which says that the message
    was accepted, to that user only; the reply is posted to the channel like any other, not to the command's
    `response_url`: that works for 30 minutes and five messages, and a reply may be later and longer.

    The turn's ID is the `trigger_id`, which is new each time a command is given; Slack does not repeat one.
    """
    team = slack_id(form.get("team_id"), "team_id")
    channel = slack_id(form.get("channel_id"), "channel_id")
    user = slack_id(form.get("user_id"), "user_id")
    trigger = slack_trigger(form.get("trigger_id"), "trigger_id")
    message = to_text(plain_text(form.get("text", "")).strip(), "message")
    if not message:
        return Received(answer=_only_to_the_user(_EMPTY))
    incoming = Incoming(
        session_id=f"slack:{team}:{channel}:{user}",
        message=message,
        turn_id=trigger,
        address={"channel": channel},
        user_id=f"slack:{team}:{user}",
    )
    return Received([incoming], _only_to_the_user(_ACCEPTED), refused=_only_to_the_user)


def _only_to_the_user(text: str) -> Answer:
    body = json.dumps({"response_type": "ephemeral", "text": text})
    return Answer(body=body, content_type="application/json")
