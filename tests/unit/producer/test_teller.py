"""Teller: channels that are slow to be told of a webhook, and those that fail."""

from __future__ import annotations

import asyncio
import threading

import pytest
from fastapi.concurrency import run_in_threadpool

from producer.teller import MOST_AT_ONCE, MOST_WAITING, Teller
from tests.channels import RecordingChannel

CHANNEL = RecordingChannel("http://127.0.0.1:1")


def test_channels_that_are_slow_take_no_thread_from_requests() -> None:
    gate = threading.Event()
    called: list[None] = []

    def hang() -> None:
        called.append(None)
        gate.wait(150)

    async def run() -> None:
        teller = Teller()
        tells = [asyncio.create_task(teller.tell(CHANNEL, hang)) for _ in range(2 * MOST_WAITING)]
        try:
            while len(called) < MOST_AT_ONCE:
                await asyncio.sleep(0.01)
            assert await asyncio.wait_for(run_in_threadpool(lambda: "answered"), 60) == "answered"
            assert len(called) == MOST_AT_ONCE
        finally:
            gate.set()
            await asyncio.gather(*tells)
        assert len(called) == MOST_WAITING, "what comes too late is left out"
        await teller.tell(CHANNEL, hang)
        assert len(called) == MOST_WAITING + 1

    asyncio.run(run())


def test_what_a_channel_raises_is_logged_without_its_message(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("what the user said")

    asyncio.run(Teller().tell(CHANNEL, fail))

    printed = capsys.readouterr()
    # Where a test before this one has set up logs, they go through the standard library.
    logged = printed.out + printed.err + caplog.text
    assert "ValueError" in logged
    assert "what the user said" not in logged
