"""Who asks: an API key, a signed-in user, or, where neither is set up, somebody on this machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from inturn.audit import act_as
from inturn.settings import Settings

from .api_keys import ApiKeys
from .problems import Refusal
from .tokens import Tokens, WrongTokenError

log = structlog.get_logger(__name__)

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="An API key of `INTURN_API_KEYS`, or a user's JSON Web Token. Where neither is set up, "
    "requests from this machine need none, and all others are refused.",
)


Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
"""What was shown, not looked at yet."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `user_id` is a signed-in user, who sees what is theirs alone; None: trusted with everything.

    `name` is what rate limits know the caller by.
    """

    name: str
    user_id: str | None = None

    @property
    def is_trusted(self) -> bool:
        """Whether the caller may act for any user, and read all."""
        return self.user_id is None


class Gate:
    """Tells who asks, or refuses. Raises `ConfigurationError` for settings that cannot be right."""

    def __init__(self, settings: Settings) -> None:
        self._keys = ApiKeys(settings.api_keys)
        self._tokens = Tokens(settings)
        self.is_closed = bool(self._keys) or self._tokens.is_set_up
        """Whether one must show something to be let in."""
        if not self.is_closed:
            log.warning(
                "no authentication is set up: requests from this machine may do anything, others are refused",
                mend="set INTURN_API_KEYS, INTURN_JWT_SECRET or INTURN_JWT_KEY_FILE",
            )

    def identify(self, request: Request, credentials: str | None) -> Caller:
        """Tell who asks; raises `Refusal` with 401, or with 403 where nothing is set up."""
        if not self.is_closed:
            if not is_local(request):
                raise Refusal(
                    403,
                    "authentication-not-set-up",
                    "without authentication only requests from this machine are answered; "
                    "set INTURN_API_KEYS, INTURN_JWT_SECRET or INTURN_JWT_KEY_FILE",
                )
            return Caller("local")
        if not credentials:
            raise _unknown("send the header Authorization: Bearer <API key or token>")
        if (name := self._keys.name_of(credentials)) is not None:
            return Caller(f"key:{name}")
        try:
            user_id = self._tokens.user_of(credentials)
        except WrongTokenError as error:
            raise _unknown(str(error)) from None
        return Caller(f"user:{user_id}", user_id)

    def admits_to_metrics(self, request: Request, credentials: str | None) -> bool:
        """Whether the figures of the process may be read: from this machine, or with an API key."""
        return is_local(request) or (credentials is not None and self._keys.name_of(credentials) is not None)


def is_local(request: Request) -> bool:
    """Whether a request comes from this machine itself.

    Not so if it came by a proxy, which connects from here too, or asks for a host of another name, which a
    page in a browser may have bent to this machine.
    """
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    return _is_loopback(request.client.host) and _is_loopback(request.url.hostname or "")


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _unknown(detail: str) -> Refusal:
    return Refusal(401, "not-signed-in", detail, {"WWW-Authenticate": "Bearer"})


async def admit(request: Request, credentials: Credentials) -> Caller:
    """Tell who asks, and count the request; raises `Refusal` with 401, 403 or 429."""
    runtime = request.app.state.runtime
    caller: Caller = runtime.gate.identify(request, credentials and credentials.credentials)
    act_as(caller.name)
    if runtime.limits:
        await run_in_threadpool(runtime.limits.spend, caller.name)
    return caller


Asks = Annotated[Caller, Depends(admit)]
"""Who asks, within their rate limit."""
