"""Sessions as the original keeps them: what holds here, where no other test says it.

docs/differences.md names the others.
"""

from __future__ import annotations

from typing import Any

import pytest

from inturn import PersistenceManager, SessionManager
from inturn.errors import InvalidInputError
from inturn.ids import create_message_id, create_session_id
from inturn.persistence import MemoryAdapter
from inturn.session import RouteRef, StepRef, create_session


def test_entering_a_route_ends_the_stay_before_it_and_clears_the_step() -> None:
    """As the original's `enterRoute` and `enterStep`."""
    session = create_session("s")
    session.enter_route(RouteRef(id="booking"))
    session.enter_step(StepRef(id="day"))

    session.enter_route(RouteRef(id="feedback"))

    first, second = session.route_history
    assert (first.route_id, first.completed, first.exited_at is not None) == ("booking", False, True)
    assert (second.route_id, second.exited_at) == ("feedback", None)
    assert (session.current_route and session.current_route.id, session.current_step) == ("feedback", None)
    assert session.stay is second


def test_titles_and_descriptions_are_kept_beside_the_data() -> None:
    """The original stored them inside the collected data."""
    persistence = PersistenceManager(MemoryAdapter())
    session = create_session("s", data={"city": "Oslo"})
    session.enter_route(RouteRef(id="trip", title="A trip"))
    session.enter_step(StepRef(id="day", description="The day"))
    persistence.save_session_state("s", session)

    after = persistence.load_session_state("s")

    assert after is not None
    assert after.data == {"city": "Oslo"}
    assert (after.current_route, after.current_step) == (session.current_route, session.current_step)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sginals": {}}, "SessionState has no sginals"),
        ({"status": "sleeping"}, "status"),
        ({"history": [{"role": "robot", "content": "x"}]}, "role"),
        ({"id": ""}, "must not be empty"),
    ],
)
def test_a_session_is_made_of_its_fields_and_of_nothing_else(fields: dict[str, Any], says: str) -> None:
    """As the original's `createSession(partial)`, but checked."""
    with pytest.raises(InvalidInputError, match=says):
        create_session(**{"id": "s", **fields})


def test_ids_say_what_they_name() -> None:
    """As in the original: `session_` and `msg_`, a time and something random."""
    assert create_session_id().startswith("session_")
    assert create_message_id().startswith("msg_")


def test_a_snapshot_of_the_memory_is_a_copy_and_clear_forgets_it_all() -> None:
    """The original's snapshot was the store itself: who changed it changed what was stored."""
    store = MemoryAdapter()
    SessionManager(store, session_id="s").add_message("user", "hello")

    before, mine = store.get_snapshot(), store.get_snapshot()
    for table in mine.values():
        for row in table:
            row.clear()
        table.clear()

    assert store.get_snapshot() == before != mine
    store.clear()
    assert store.get_snapshot() == {"sessions": [], "messages": [], "turns": []}
