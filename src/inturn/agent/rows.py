"""Rows: what a turn writes into the history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inturn.agent.compaction import SUMMARY
from inturn.agent.journal import Round
from inturn.agent.turn import INTERRUPTED, Outcome
from inturn.session.state import HistoryItem, Message, SessionState, utcnow


def turn_row(
    session: SessionState,
    turn_id: str,
    line: HistoryItem,
    route: str | None,
    step: str | None,
    event: dict[str, Any] | None = None,
) -> Message:
    """One line of the conversation as a row."""
    return Message(
        session_id=session.id,
        turn_id=turn_id,
        user_id=session.user_id,
        role=line.role,
        content=line.content,
        name=line.name,
        route=route,
        step=step,
        tool_calls=line.tool_calls,
        event=event,
        created_at=line.timestamp or utcnow(),
    )


def reply_rows(session: SessionState, turn_id: str, outcome: Outcome) -> list[Message]:
    """What a turn adds behind the user's message: a summary, the calls of tools, and the reply, in order.

    The reply of a turn that was stopped may be empty; its event says that it was interrupted.
    """
    rows: list[Message] = []
    if outcome.summary is not None:
        line = HistoryItem(role="system", name=SUMMARY, content=outcome.summary.text, timestamp=utcnow())
        event = {"summary": {"through": outcome.summary.through}}
        rows.append(turn_row(session, turn_id, line, outcome.route, outcome.step, event))
    rows += tool_rows(session, turn_id, outcome.rounds, outcome.route, outcome.step)
    reply = HistoryItem(role="assistant", content=outcome.message, timestamp=utcnow())
    stopped = {INTERRUPTED: True} if outcome.finish_reason == INTERRUPTED else None
    return [*rows, turn_row(session, turn_id, reply, outcome.route, outcome.step, stopped)]


def tool_rows(
    session: SessionState, turn_id: str, rounds: Iterable[Round], route: str | None, step: str | None
) -> list[Message]:
    """A row for each call of a tool whose result is known: `tool_calls` says what was asked."""
    now = utcnow()
    return [
        turn_row(
            session,
            turn_id,
            HistoryItem(
                role="tool",
                name=call.name,
                content=result.output,
                timestamp=now,
                tool_calls=[
                    {"id": call.id, "name": call.name, "arguments": call.arguments, "failed": result.failed}
                ],
            ),
            route,
            step,
        )
        for each in rounds
        for call, result in zip(each.calls, each.results, strict=True)
        if result is not None
    ]
