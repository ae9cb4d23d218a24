"""The load: which turns each producer offers, and when; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple


class Turn(NamedTuple):
    """The `number`-th turn of a session, due so many seconds after the start."""

    session_id: str
    number: int
    due: float
    is_more: bool = False
    """It comes after those that were asked for."""

    @property
    def key(self) -> str:
        return f"t{self.number}"

    @property
    def text(self) -> str:
        return f"{self.session_id} {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`turns` over `sessions` within `seconds`; some sessions are hot, and some have their replies sent.

    Three turns of ten go to the hot sessions, one in fifty.
    """

    turns: int
    sessions: int
    seconds: float
    seed: int
    producers: int = 3

    def session_ids(self) -> list[str]:
        return [f"s{number}" for number in range(self.sessions)]

    def hot(self) -> int:
        """How many sessions are hot: the first ones."""
        return max(min(3, self.sessions), self.sessions // 50)

    def is_delivered(self, session_id: str) -> bool:
        """Whether the replies of a session go out on a channel: those of every tenth do."""
        return int(session_id[1:]) % 10 == 5

    def plan(self) -> Iterator[Turn]:
        """All turns in the order in which they are due, of each session in the order of their numbers.

        It goes on after the last one at the same pace, for as long as the run needs turns for its faults.
        """
        chance = random.Random(self.seed)
        ids = self.session_ids()
        counts = dict.fromkeys(ids, 0)
        for place in count():
            session_id = chance.choice(ids[: self.hot()] if chance.random() < 0.3 else ids)
            counts[session_id] += 1
            is_more = place >= self.turns
            yield Turn(session_id, counts[session_id], place * self.seconds / self.turns, is_more)

    def lane(self, session_id: str, lanes: int) -> tuple[int, int]:
        """Which producer offers the turns of a session, and which of its threads."""
        number = int(session_id[1:])
        return number % self.producers, number // self.producers % lanes
