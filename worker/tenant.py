"""Tenant: on whose account a turn is taken."""

from __future__ import annotations

from inturn.contract import RespondPayload
from inturn.ids import MAX_ID_LENGTH


def tenant_of(payload: RespondPayload) -> str | None:
    """The message's `metadata["tenant"]`, a text; else of a message from Slack its team; else None.

    Users cannot name one: metadata come from the producer's own code, and the team from what Slack signed.
    """
    named = payload.metadata.get("tenant")
    if isinstance(named, str) and named:
        return named[:MAX_ID_LENGTH]
    if payload.channel == "slack":
        # slack:<team>:<channel>..., see channels/slack_events.py
        kind, _, rest = payload.session_id.partition(":")
        team = rest.partition(":")[0]
        return f"slack:{team}" if kind == "slack" and team else None
    return None
