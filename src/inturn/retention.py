"""Retention: how long sessions are kept, as the settings say it, and what a run has done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, get_args
from urllib.parse import unquote

from pydantic import BaseModel, Field

from inturn.session.state import SessionState, utcnow

Stage = Literal["completed", "abandoned", "idle"]
"""What may become old: sessions of a status, which are deleted then, and active ones, which are abandoned."""

STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

_AGE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(s|min|h|d)", re.A)
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


class Rule(NamedTuple):
    """How old sessions may become; None: as old as they like. With an agent or a channel: those of it."""

    stage: Stage
    age: timedelta | None
    agent: str | None = None
    channel: str | None = None

    @property
    def weight(self) -> int:
        """Rules with a greater one go before others."""
        return (self.agent is not None) + (self.channel is not None)


class Policy:
    """All rules together: of those that fit a session, the one that says most about it holds.

    One that names agent and channel holds before one that names either, and this before one that names
    none. Of two that say as much, the later one holds.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        last = {(rule.stage, rule.agent, rule.channel): rule for rule in rules}
        self._rules = list(last.values())[::-1]
        self._rules.sort(key=lambda rule: rule.weight, reverse=True)  # later ones stay before earlier ones

    def age(self, stage: Stage, agent: str | None, channel: str) -> timedelta | None:
        """How old a session may become; None: as old as it likes."""
        for rule in self._rules:
            if rule.stage == stage and rule.agent in (None, agent) and rule.channel in (None, channel):
                return rule.age
        return None

    def least(self, stage: Stage) -> timedelta | None:
        """The least age at which any session is old; None: none ever is."""
        return min((rule.age for rule in self._rules if rule.stage == stage and rule.age), default=None)


def read_policy(text: str, defaults: Mapping[Stage, timedelta]) -> Policy:
    """Read rules such as `completed=30d, agent:support completed=90d, channel:sms completed=14d`.

    An age is a number of `s`, `min`, `h` or `d`, or `never`. Characters of an agent's name that mean
    something here are percent-encoded, as in `agent:front%20desk`. Raises `ValueError`.
    """
    rules = [_read_rule(part.strip()) for part in text.split(",") if part.strip()]
    names = [(rule.stage, rule.agent, rule.channel) for rule in rules]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"retention says two things about the same sessions: {text!r}")
    return Policy([*(Rule(stage, age) for stage, age in defaults.items()), *rules])


def _read_rule(part: str) -> Rule:
    words, _, age = (side.strip() for side in part.rpartition("="))
    *selectors, stage = words.split() or [""]
    named: dict[str, str | None] = {"agent": None, "channel": None}
    for selector in selectors:
        kind, _, name = selector.partition(":")
        if kind not in named or named[kind] is not None or not name:
            raise ValueError(
                f"retention: {part!r} must name its sessions as in `agent:support channel:sms completed=14d`"
            )
        named[kind] = unquote(name)
    if stage not in STAGES:
        raise ValueError(f"retention: {part!r} must say completed=, abandoned= or idle=")
    found = _AGE.fullmatch(age)
    if age != "never" and (found is None or float(found[1]) == 0):
        raise ValueError(f"retention: {age!r} in {part!r} is no age; write one like 12h or 30d, or never")
    kept = None if found is None else timedelta(**{_UNITS[found[2]]: float(found[1])})
    return Rule(stage, kept, named["agent"], named["channel"])


def channel_of(session: SessionState, channels: Iterable[str]) -> str:
    """The channel of a session: the one its last reply went out on, else that of its ID, else `web`.

    The IDs of a channel's sessions begin with its name and a colon; `channels` are those there may be.
    """
    if session.outbox:
        return next(reversed(session.outbox.values())).channel
    name, colon, _ = session.id.partition(":")
    return name if colon and name in channels else "web"


class RetentionReport(BaseModel):
    """What one run did, or with `dry_run` would have done.

    `abandoned` counts idle active sessions that were marked, `deleted` sessions that went, by status, with
    `messages` of them all; `exported` those that were written to the export before; `skipped` those that were
    due and stayed: busy, changed meanwhile, or of a user who wants no messages. `unreadable` counts those of
    which nobody could tell, as their key is not here or they are damaged: they stay, and
    `unreadable_sessions` names the first of them. A run goes on over several
    tasks; `finished` is False until all of it is done, `changed_at` is when it last got on.
    """

    abandoned: int = 0
    deleted: dict[Literal["completed", "abandoned"], int] = {"completed": 0, "abandoned": 0}
    messages: int = 0
    exported: int = 0
    skipped: int = 0
    unreadable: int = 0
    unreadable_sessions: list[str] = Field(default_factory=list)
    dry_run: bool = False
    finished: bool = False
    started_at: datetime = Field(default_factory=utcnow)
    changed_at: datetime = Field(default_factory=utcnow)


class RetentionRun(BaseModel):
    """How far a run has come, for whoever goes on with it.

    `cursor` is the page of the stage that comes next. `doomed` are sessions that are being deleted, with the
    turns of theirs of which Redis may know something: should this process die, that must go too.
    """

    report: RetentionReport = Field(default_factory=RetentionReport)
    stage: Stage = STAGES[0]
    cursor: str | None = None
    doomed: dict[str, list[str]] = Field(default_factory=dict)
