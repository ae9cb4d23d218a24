"""What waits in all sessions together, and for how long it has been left alone, as figures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest

from inturn.contract import DeadLetter, TurnFault
from inturn.settings import Settings, load_settings
from inturn.turns import DeadLetters, Deliveries, Mailbox
from inturn.turns.backlog import Backlog, BacklogCollector, BacklogReader
from inturn.turns.connection import connect
from tests.servers_cluster import ValkeyCluster
from tests.waiting import wait_until

MakeSettings = Callable[..., Settings]

pytestmark = pytest.mark.leaves_keys("*")  # what waits here is for nobody


def read(settings: Settings) -> Backlog:
    with connect(settings) as redis:
        return BacklogReader(redis, settings).read()


def fill(settings: Settings) -> None:
    """Three turns in two sessions, a delivery, and two turns that failed."""
    with connect(settings) as redis:
        mailbox = Mailbox(redis, settings)
        for session, turn in (("a", "a:1"), ("a", "a:2"), ("b", "b:1")):
            mailbox.offer(session, turn, "{}")
        Deliveries(redis, settings).offer("a", "a:0", "slack")
        for turn in ("a:8", "a:9"):
            letter = DeadLetter(
                session_id="a", turn_id=turn, error=TurnFault(type="ProviderError", message="")
            )
            DeadLetters(redis, settings).put(letter, "{}")


def test_nothing_waits_at_first(turn_settings: MakeSettings) -> None:
    assert read(turn_settings()) == Backlog(0, 0, 0, 0, 0)


def test_it_counts_turns_deliveries_and_dead_letters(turn_settings: MakeSettings) -> None:
    settings = turn_settings()
    fill(settings)

    assert read(settings) == Backlog(3, 0, 1, 0, 2)


def test_a_session_is_overdue_from_when_somebody_should_have_acted(turn_settings: MakeSettings) -> None:
    settings = turn_settings(grace_seconds=0.2, sweep_seconds=0.1)
    began = time.time()
    fill(settings)

    found = wait_until(lambda: found if (found := read(settings)).deliveries_overdue > 0 else None)

    assert found is not None
    # As long as they have been overdue, and no longer than they have been there.
    assert 0 < found.deliveries_overdue <= found.turns_overdue < time.time() - began


def test_on_a_cluster_it_is_the_same(cluster: ValkeyCluster, key_prefix: str) -> None:
    settings = load_settings(
        redis_url=cluster.url,
        redis_cluster=True,
        broker_url="redis://127.0.0.1:1",
        key_prefix=f"{key_prefix}-cluster",
    )
    before = read(settings)
    fill(settings)

    assert (before, read(settings)) == (Backlog(0, 0, 0, 0, 0), Backlog(3, 0, 1, 0, 2))


def figures(settings: Settings) -> dict[str, float]:
    with connect(settings, timeout=0.5, retries=0) as redis:
        return {
            family.name: family.samples[0].value
            for family in BacklogCollector(BacklogReader(redis, settings)).collect()
        }


def test_prometheus_is_told_all_of_it(turn_settings: MakeSettings) -> None:
    settings = turn_settings()
    fill(settings)

    assert figures(settings) == {
        "inturn_redis_up": 1,
        "inturn_turns_waiting": 3,
        "inturn_turns_overdue_seconds": 0,
        "inturn_deliveries_waiting": 1,
        "inturn_deliveries_overdue_seconds": 0,
        "inturn_dead_letters": 2,
    }


def test_while_redis_is_away_no_number_is_made_up() -> None:
    found = figures(load_settings(redis_url="redis://127.0.0.1:1/0"))

    assert found.pop("inturn_redis_up") == 0
    assert len(found) == 5
    assert all(math.isnan(value) for value in found.values())


def test_without_a_reader_nothing_is_told() -> None:
    assert list(BacklogCollector().collect()) == []
