"""Journal: what a turn has done that must not be done again, should the turn be taken anew.

It is part of the session, under the turn's ID, and is saved by a commit of its own in the middle of the turn:
that commit is a compare-and-swap like every other, so that of two workers that take the same turn (one of
them paused past its lease) only one can announce a call. The turn's own commit clears it.

| we die | the turn that is taken again |
| --- | --- |
| before the announcement is saved | asks the model again: nothing was called |
| between the announcement and the results | calls nothing again; the model hears: outcome unknown |
| after the results are saved | goes on behind them: neither model nor tool is asked for them again |
| after the turn's commit | is answered from the store |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from inturn.agent.context import Effects
from inturn.agent.provider import ToolCall, ToolRound
from inturn.session.manager import SessionManager
from inturn.session.state import utcnow
from inturn.values import to_json


@dataclass
class ToolResult:
    """What a call came to: the text for the model, and what the tool wants changed."""

    output: str
    failed: bool = False
    effects: Effects = field(default_factory=Effects)


@dataclass
class Round:
    """The calls of one reply; a result is None as long as it is not known."""

    calls: tuple[ToolCall, ...]
    results: list[ToolResult | None]

    def as_told(self) -> ToolRound:
        """The round as the model is told of it."""
        return ToolRound(self.calls, tuple(result.output if result else "" for result in self.results))


class Journal:
    """The journal of one turn; empty unless the turn was begun before."""

    def __init__(self, session: SessionManager, turn_id: str) -> None:
        self._session = session
        self._turn_id = turn_id
        kept = session.current.journal.get(turn_id, {}) if session.current else {}
        self.route: tuple[str | None] | None = (kept["route"],) if "route" in kept else None
        """The route that the turn was in when its first tool was called; None: no tool was called yet."""
        self.rounds: list[Round] = [_round(each) for each in kept.get("rounds", ())]
        self._once: dict[str, Any] = dict(kept.get("once", {}))

    def announce(self, route: str | None, calls: Sequence[ToolCall], *, save: bool) -> Round:
        """Note the calls of a reply before the first of them is made; `save`: now, for they change something.

        Raises `SessionConflictError` if another worker may be making them.
        """
        self.route = self.route or (route,)
        self.rounds.append(Round(tuple(calls), [None] * len(calls)))
        if save:
            self._save()
        return self.rounds[-1]

    def complete(self, *, save: bool) -> None:
        """Note that the results of the last round are known."""
        if save:
            self._save(keep=True)

    def once(self, key: str, function: Callable[[], Any]) -> Any:
        """See `TurnContext.once`."""
        if key not in self._once:
            self._once[key] = json.loads(to_json(function(), f"the result of {key!r}"))
            self._save(keep=True)
        return self._once[key]

    def close(self) -> None:
        """Take the notes out of the session: the commit that follows ends the turn."""
        if self._session.current is not None:
            self._session.current.journal.pop(self._turn_id, None)

    def _save(self, *, keep: bool = False) -> None:
        notes: dict[str, Any] = {"at": utcnow()}
        if self.route is not None:
            notes["route"] = self.route[0]
            notes["rounds"] = [asdict(each) for each in self.rounds]
        if self._once:
            notes["once"] = self._once
        self._session.checkpoint(self._turn_id, notes, keep=keep)


def _round(kept: dict[str, Any]) -> Round:
    return Round(
        tuple(ToolCall(**call) for call in kept["calls"]),
        [
            result and ToolResult(result["output"], result["failed"], Effects(**result["effects"]))
            for result in kept["results"]
        ],
    )
