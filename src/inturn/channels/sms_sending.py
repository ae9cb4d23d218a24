"""Sending: a text message on its way to Twilio, and what is known of it when that goes wrong."""

from __future__ import annotations

import math
import ssl
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from inturn.channels.sms_driver import twilio
from inturn.errors import (
    ChannelError,
    DeliveryRefusedError,
    DeliveryUnavailableError,
    DeliveryUnknownError,
)

CONNECT_TIMEOUT = 5.0

_LATER = frozenset({20429, 20503, 21611})
"""Too many requests, service unavailable, the sender's queue is full: nothing was taken, says Twilio."""

_MENDS = {
    20003: "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN",
    21609: "INTURN_PUBLIC_URL must be an address that Twilio can reach",
    21610: "opted out",
}


def send_message(
    account_sid: str, auth_token: str, base_url: str, timeout: float, message: dict[str, str]
) -> str:
    """Create a message at Twilio, once; returns its SID.

    `message` holds the arguments of the client's `messages.create`. Raises as `Channel.send` does, and shows
    no more of an answer than its codes.
    """
    wire = _Wire(base_url, timeout)
    client = twilio("rest").Client(account_sid, auth_token, http_client=wire)
    try:
        return str(client.messages.create(**message).sid or "")
    except twilio("base.exceptions").TwilioException as error:
        # Its message may name the number.
        raise _translate(error, wire.retry_after) from None
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise DeliveryUnknownError(
            f"Twilio's answer could not be read ({type(error).__name__}); check INTURN_TWILIO_BASE_URL"
        ) from None


class _Wire:
    """The HTTP client of Twilio's own client, for one call.

    It speaks to `base_url` instead of Twilio's own host, repeats nothing and logs nothing. Each call has its
    own connection: one that was kept open may have been closed by the other side, and of a request that fails
    on it nobody can tell whether it was sent.
    """

    is_async = False

    def __init__(self, base_url: str, timeout: float) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout
        self.retry_after: float | None = None

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """Make a request; raises `DeliveryUnavailableError` or `DeliveryUnknownError` if it has no answer."""
        options["timeout"] = (CONNECT_TIMEOUT, self._timeout)
        try:
            with requests.Session() as session:
                answer = session.request(method, self._base_url + urlsplit(url).path, **options)
        except requests.RequestException as error:
            # Its message holds the URL.
            if _was_not_sent(error):
                raise DeliveryUnavailableError(
                    f"no connection to Twilio ({type(error).__name__}); nothing was sent"
                ) from None
            raise DeliveryUnknownError(
                f"the connection to Twilio broke before its answer came ({type(error).__name__})"
            ) from None
        self.retry_after = _seconds(answer.headers.get("retry-after", ""))
        return answer


def _was_not_sent(error: requests.RequestException) -> bool:
    """Whether it is certain that the request never went out: there was no connection to send it on."""
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.ProxyError):
        return True
    # Not by way of __context__: that leads on into the error that the caller may be handling.
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(reason, urllib3.exceptions.SSLError):
        return any(isinstance(arg, ssl.SSLCertVerificationError) for arg in reason.args)
    return isinstance(reason, urllib3.exceptions.NewConnectionError)


def _translate(error: Exception, retry_after: float | None) -> ChannelError:
    status, code = (_whole(getattr(error, name, None)) for name in ("status", "code"))
    told = f"HTTP {status}" if code in (0, status) else f"HTTP {status}, code {code}"
    if status == 429 or code in _LATER:
        return DeliveryUnavailableError(f"Twilio takes nothing now ({told})", retry_after=retry_after)
    if status >= 500 or status in (0, 408):
        # Twilio: after such an answer to the creation of a message, to repeat it may send it twice.
        return DeliveryUnknownError(f"Twilio failed ({told}); whether it sends the message is not known")
    if status < 400:
        return DeliveryRefusedError(f"this is not Twilio's API ({told}); check INTURN_TWILIO_BASE_URL")
    mend = f"; {_MENDS[code]}" if code in _MENDS else ""
    return DeliveryRefusedError(f"Twilio refused the message ({told}){mend}")


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
