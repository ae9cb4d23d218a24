"""Ending: what turns came to is stored, and they leave their mailbox, in one step where that can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from inturn.contract import TurnResult
from inturn.errors import StoreError
from inturn.turns import Finished, Head

from .burying import bury
from .erased import keep
from .facts import facts
from .runtime import Runtime

log = structlog.get_logger(__name__)


def end(
    runtime: Runtime,
    session_id: str,
    head: Head,
    ended: Sequence[TurnResult],
    finish: Callable[..., Finished],
    *,
    own_id: str,
    took: float,
    since: float,
) -> tuple[Sequence[TurnResult], Finished]:
    """Store what the turns in hand have ended with, and finish them; what was stored, and what comes next.

    `finish` is `Mailbox.finish` of the head; `own_id` the ID of the running task, `took` the seconds for
    which they ran, `since` as for `keep`. The result comes first: a turn leaves its mailbox only once whoever
    waits for it can have its answer. Raises as `keep` and `finish`, and nothing once the turn has left.
    """
    finished: list[Finished] = []

    def store(ended: Sequence[TurnResult]) -> None:
        bury(runtime, session_id, head, ended)
        tell = runtime.results.store
        if runtime.results.with_mailbox and not finished:
            finished.append(finish(results=[runtime.results.kept(result) for result in ended]))
            if finished[0].outcome == "lost":
                return  # nothing was stored: whoever has the lease now tells how the turn ends
            tell = runtime.results.tell
        for result in ended:
            tell(result, own=result.turn_id == own_id, runtime=took)

    try:
        kept = keep(runtime, session_id, head, ended, since, store)
    except StoreError as error:
        if not finished:
            raise
        # The turn is stored and gone. Whoever erases its user meanwhile takes out the result that is there.
        log.warning("result not looked at again", turn_id=head.turn_id, **facts(error))
        kept = ended
    return kept, finished[0] if finished else finish()
