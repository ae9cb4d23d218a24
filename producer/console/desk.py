"""Desk: what the console of one process works with."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from redis import Redis

from inturn.persistence.audited import AuditedAdapter
from inturn.persistence.opening import layer_of
from inturn.settings import Settings
from inturn.turns.holding import Holdings

from ..auth import is_local
from ..problems import Refusal
from ..store import Store
from .operators import Operators
from .sign_ins import SignIns
from .workers import Workers


class Desk:
    """Everything that only the console needs; nothing of it is connected before it is used.

    Raises `ConfigurationError` for an `INTURN_CONSOLE_USERS` that cannot be right.
    """

    def __init__(self, redis: Redis, store: Store, settings: Settings) -> None:
        self._settings = settings
        self._store = store
        self.operators = Operators(settings.console_users)
        self.sign_ins = SignIns(redis, settings, self.operators)
        self.holdings = Holdings(redis, settings.key_prefix)
        self.out_holdings = Holdings(redis, f"{settings.key_prefix}-out")
        self.workers = Workers(settings)

    def scheme_of(self, request: Request) -> str:
        """By which scheme a request has come to us from its browser.

        Raises `Refusal` with 403 if that is plain HTTP from elsewhere: passwords do not go that way, unless
        `INTURN_PUBLIC_URL` says that they shall.
        """
        if self._settings.public_url:
            return urlsplit(self._settings.public_url).scheme
        if request.url.scheme == "https" or is_local(request):
            return request.url.scheme
        raise Refusal(
            403,
            "not-over-https",
            "the console is for HTTPS, and for this machine itself; behind a proxy set INTURN_PUBLIC_URL to "
            "the address at which browsers reach it",
        )

    def origins_of(self, request: Request) -> set[str]:
        """The origins from which forms may come: our own, as the browser sees it."""
        mine = {f"{self.scheme_of(request)}://{request.headers.get('host', '')}"}
        if self._settings.public_url:
            address = urlsplit(self._settings.public_url)
            mine.add(f"{address.scheme}://{address.netloc}")
        return mine

    def note(self, action: Any, call: str, session_ids: list[str], **facts: Any) -> None:
        """Have in the audit log what is about to be looked at, or done, past the store.

        Raises `AuditUnavailableError`, or `StoreUnavailableError` if the store was not open yet: then it must
        not happen. Without an audit log it does nothing.
        """
        if self._settings.audit_log is None or not session_ids:
            return
        with self._store.use() as adapter:
            audited = layer_of(adapter, AuditedAdapter)
        assert audited is not None  # the settings have it so
        audited.log.append(action, session_ids=session_ids, call=call, **facts)

    def close(self) -> None:
        """Give back what was opened."""
        self.workers.close()
