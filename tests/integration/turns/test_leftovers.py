"""What an idle session leaves in Redis: nothing without a time to live (the fixture checks it)."""

from __future__ import annotations

from inturn.turns import Mailbox
from inturn.turns.lease import create_token
from tests.waiting import wait_until


def test_an_idle_session_leaves_nothing_that_stays(mailbox: Mailbox) -> None:
    for turn in ("t1", "t2", "t3"):
        mailbox.offer("s", turn, turn)
    mailbox.cancel("s", "t2")
    begun = mailbox.begin("s", "t1", create_token())
    assert begun.lease is not None
    mailbox.release(begun.lease, delay=0.001)
    begun = wait_until(lambda: _ok(mailbox))
    assert begun.lease is not None
    mailbox.finish(begun.lease, "t1", go_on=False)
    begun = mailbox.begin("s", "t3", create_token())
    assert begun.lease is not None

    assert mailbox.finish(begun.lease, "t3", go_on=True).outcome == "empty"


def test_a_session_whose_only_turn_was_cancelled_leaves_nothing_that_stays(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "x")

    assert mailbox.cancel("s", "t1") == "dropped"


def _ok(mailbox: Mailbox):  # type: ignore[no-untyped-def]
    begun = mailbox.begin("s", "t1", create_token())
    return begun if begun.outcome == "ok" else None
