"""How long a turn that failed for now waits for its next try."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from inturn.errors import ProviderUnavailableError, StoreUnavailableError
from inturn.settings import load_settings
from inturn.turns import Head
from worker.drive import LONGEST_RETRY_AFTER, _later


def waits(error: Exception, attempts: int = 1) -> list[float]:
    """What many turns that fail in the same moment wait."""
    runtime: Any = SimpleNamespace(settings=load_settings())
    head = Head("s:1", "{}", attempts=attempts, waiting=1)
    return [_later(runtime, head, error).delay for _ in range(200)]


@pytest.mark.parametrize(("attempts", "least", "most"), [(1, 0.8, 1.2), (3, 3.2, 4.8), (50, 48, 72)])
def test_the_wait_doubles_up_to_the_longest_and_is_spread(attempts: int, least: float, most: float) -> None:
    found = waits(ValueError(), attempts)

    assert all(least <= wait <= most for wait in found)
    assert max(found) - min(found) > (most - least) / 3


def test_a_time_that_was_asked_for_is_the_least_and_is_spread() -> None:
    found = waits(ProviderUnavailableError(retry_after=30))

    assert all(30 <= wait <= 36 for wait in found)
    assert max(found) - min(found) > 2
    assert all(wait >= 12.8 for wait in waits(ProviderUnavailableError(retry_after=3), attempts=5))


def test_nobody_waits_for_a_day() -> None:
    assert max(waits(ProviderUnavailableError(retry_after=86_400))) <= 1.2 * LONGEST_RETRY_AFTER


def test_an_outage_is_no_attempt_and_a_failure_is_one() -> None:
    runtime: Any = SimpleNamespace(settings=load_settings())
    head = Head("s:1", "{}", attempts=1, waiting=1)

    assert not _later(runtime, head, StoreUnavailableError()).counts
    assert _later(runtime, head, ProviderUnavailableError()).counts
