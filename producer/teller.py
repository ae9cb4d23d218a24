"""Teller: tells channels what became of a webhook's messages, once the webhook is answered."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from anyio import CapacityLimiter, to_thread

from inturn.channels import Channel

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 8
"""Threads that may be with a platform at the same time."""
MOST_WAITING = 100
"""Calls that may wait for one; what comes beyond is left out: it would come too late to be of use."""


class Teller:
    """Calls channels in threads of its own.

    A platform that is slow to take a sign that the bot is at work holds up the other signs, and none of the
    webhooks.
    """

    def __init__(self) -> None:
        self._threads = CapacityLimiter(MOST_AT_ONCE)
        self._waiting = 0
        self._is_full = False

    async def tell(self, channel: Channel, call: Callable[[], None]) -> None:
        """Call, and log what is raised."""
        if self._waiting >= MOST_WAITING:
            if not self._is_full:
                log.warning("channels are slow to be told of webhooks; some are not", channel=channel.name)
            self._is_full = True
            return
        self._waiting += 1
        try:
            await to_thread.run_sync(call, limiter=self._threads)
        except Exception as error:
            log.warning("a channel failed after a webhook", channel=channel.name, error=type(error).__name__)
        finally:
            self._waiting -= 1
            self._is_full = self._is_full and self._waiting > 0
