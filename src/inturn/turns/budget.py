"""ModelBudget: how much all workers together, and those of one tenant, may use of the language model."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from inturn.contract import Usage
from inturn.errors import (
    ConfigurationError,
    MailboxError,
    ModelBudgetError,
    ProviderUnavailableError,
)
from inturn.settings import Settings
from inturn.turns.keys import Keys
from inturn.turns.scripts import Scripts

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)

KNOWN_MS = 60_000
"""How long a call of the script is known, so that its repetition counts nothing twice."""


@dataclass(frozen=True)
class _Limit:
    """So many requests or tokens in so many seconds, of all or of one tenant."""

    what: Literal["requests", "tokens"]
    most: int
    seconds: int
    of_tenant: bool

    def __str__(self) -> str:
        return f"{self.what}{' of one tenant' if self.of_tenant else ''}: {self.most} in {self.seconds} s"


class ModelBudget:
    """The limits of `INTURN_MODEL_REQUESTS` and `INTURN_MODEL_TOKENS`, and those of each tenant, on Redis.

    A turn asks before its first call of the model, and waits if any limit is used up. Whatever is used is
    recorded: the request of a turn's first call when it asks, so that these are never too many; later calls
    and tokens when they are known. Those who ask afterwards wait for it. A process that dies during a call
    takes the record of that call along.

    False where no limit is set. Raises `ConfigurationError` for a limit that is none.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._limits = [
            *_limits("INTURN_MODEL_REQUESTS", settings.model_requests, "requests", of_tenant=False),
            *_limits("INTURN_MODEL_TOKENS", settings.model_tokens, "tokens", of_tenant=False),
            *_limits(
                "INTURN_TENANT_MODEL_REQUESTS", settings.tenant_model_requests, "requests", of_tenant=True
            ),
            *_limits("INTURN_TENANT_MODEL_TOKENS", settings.tenant_model_tokens, "tokens", of_tenant=True),
        ]
        self._keys = Keys(settings.key_prefix)
        self._scripts = Scripts(redis, "spend")
        self._longest = settings.retry_max_seconds

    def __bool__(self) -> bool:
        return bool(self._limits)

    def of_turn(self, tenant: str | None) -> Allowance | None:
        """What a turn of this tenant (None: of nobody in particular) may use; None: as much as it likes."""
        return Allowance(self, tenant) if self else None

    def enter(self, tenant: str | None) -> None:
        """Record a turn's first request; raises `ModelBudgetError` if it has to wait, `MailboxError`."""
        limits = self._of(tenant)
        wait_ms, number, refused = self._spend(limits, tenant, Usage(calls=1), asks=True)
        if wait_ms == 0:
            return
        if number == 0:
            why, spread = "the model has asked for a pause", self._longest / 20
        else:
            limit = limits[number - 1]
            why = f"the model's budget is used up ({limit})"
            # As many come back in a window as may have something then, and not all at its beginning.
            spread = min(max(limit.seconds * refused / limit.most, limit.seconds / 20), self._longest)
        raise ModelBudgetError(why, retry_after=wait_ms / 1000 + random.uniform(0, spread))

    def record(self, tenant: str | None, usage: Usage, *, pause: float = 0.0) -> None:
        """Record what was used; for `pause` seconds nobody is let in. Raises `MailboxError`."""
        self._spend(self._of(tenant), tenant, usage, asks=False, pause=min(pause, self._longest))

    def _of(self, tenant: str | None) -> list[_Limit]:
        return [limit for limit in self._limits if tenant is not None or not limit.of_tenant]

    def _spend(
        self, limits: Sequence[_Limit], tenant: str | None, usage: Usage, *, asks: bool, pause: float = 0.0
    ) -> tuple[int, int, int]:
        keys = [self._keys.of_budget("closed"), self._keys.of_budget(f"call:{secrets.token_hex(8)}")]
        args = [int(asks), math.ceil(pause * 1000), KNOWN_MS]
        tokens = usage.input_tokens + usage.output_tokens
        for limit in limits:
            name = f"{limit.what}:{limit.seconds}"
            keys.append(self._keys.of_budget(name, tenant if limit.of_tenant else None))
            args += [limit.most, limit.seconds * 1000, usage.calls if limit.what == "requests" else tokens]
        wait_ms, number, refused = self._scripts.run("spend", keys, *args)
        return wait_ms, number, refused


class Allowance:
    """What one turn may use of the model; see `inturn.agent.budget.TurnBudget`."""

    def __init__(self, budget: ModelBudget, tenant: str | None) -> None:
        self._budget = budget
        self._tenant = tenant
        self._recorded: int | None = None
        """How many requests of the call that runs are recorded; None: the turn has made none."""

    def before_call(self) -> None:
        """Ask, before the turn's first call. Raises `ModelBudgetError`, `MailboxError`."""
        if self._recorded is None:
            self._budget.enter(self._tenant)
            self._recorded = 1

    def after_call(self, usage: Usage, error: BaseException | None) -> None:
        """Record what a call has used, and how long a pause the model has asked for with its refusal."""
        pause = error.retry_after or 0.0 if isinstance(error, ProviderUnavailableError) else 0.0
        calls = max(1, usage.calls) - (self._recorded or 0)
        self._recorded = 0
        try:
            self._budget.record(self._tenant, usage.model_copy(update={"calls": calls}), pause=pause)
        except MailboxError as failure:
            # The call was made all the same; and while Redis is away no other turn begins either.
            log.warning("use of the model not recorded", error=str(failure))


def _limits(name: str, text: str, what: Literal["requests", "tokens"], *, of_tenant: bool) -> list[_Limit]:
    if not text.strip():
        return []
    from limits import parse_many

    try:
        items = parse_many(text)
    except ValueError:
        raise ConfigurationError(f"{name} is no rate; write 500/minute, or 20/second;500/minute") from None
    most: dict[int, int] = {}
    for item in items:
        # Two of one window are one: they would be counted in one place.
        most[item.get_expiry()] = min(item.amount, most.get(item.get_expiry(), item.amount))
    return [_Limit(what, amount, seconds, of_tenant) for seconds, amount in most.items()]
