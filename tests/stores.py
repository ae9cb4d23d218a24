"""TroubledStore: a memory store that fails, and is written to by others, exactly where a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inturn.errors import StoreUnavailableError
from inturn.persistence import Committed, Loaded, MemoryAdapter, Target
from inturn.session import Message, SessionState, TurnRecord


class TroubledStore(MemoryAdapter):
    """`failing` names primitives that raise; `lost_answers` commits happen, and then raise; each of
    `meanwhile` is run once, right before a commit."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: set[str] = set()
        self.lost_answers = 0
        self.meanwhile: list[Callable[[], object]] = []
        self.loads = 0
        self.commits = 0

    def load(self, session_id: str, *, last_messages: int = 0, turn_id: str | None = None) -> Loaded | None:
        self.loads += 1
        self._fail("load")
        return super().load(session_id, last_messages=last_messages, turn_id=turn_id)

    def commit(
        self,
        session: SessionState,
        messages: Sequence[Message] = (),
        *,
        expected_version: int,
        turn: TurnRecord | None = None,
    ) -> Committed:
        self._fail("commit")
        if self.meanwhile:
            self.meanwhile.pop(0)()
        committed = super().commit(session, messages, expected_version=expected_version, turn=turn)
        self.commits += 1
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreUnavailableError
        return committed

    def delete_sessions(self, targets: Sequence[Target]) -> list[str]:
        self._fail("delete_sessions")
        return super().delete_sessions(targets)

    def _fail(self, primitive: str) -> None:
        if primitive in self.failing:
            raise StoreUnavailableError
