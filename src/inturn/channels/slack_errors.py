"""Errors of asking Slack: what is known to be done when its client, or Slack itself, reports one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.error import URLError

from inturn.errors import ChannelError, DeliveryRefusedError, DeliveryUnavailableError, DeliveryUnknownError

if TYPE_CHECKING:
    from slack_sdk.web import SlackResponse

_LATER = frozenset(
    {"rate_limited", "ratelimited", "request_timeout", "service_unavailable", "team_added_to_org"}
)
"""Slack has done nothing, and may do it later. `request_timeout` is its word for a request cut short."""
_PERHAPS_DONE = frozenset({"fatal_error", "internal_error"})
"""Of these Slack says itself that some of the operation may have succeeded."""
_LET_IN = "check SLACK_BOT_TOKEN"
_INVITE = "invite the bot to the channel"
_MENDS = {
    "account_inactive": _LET_IN,
    "channel_not_found": _INVITE,
    "invalid_auth": _LET_IN,
    "missing_scope": "give the app the scope chat:write, and install it again",
    "not_authed": _LET_IN,
    "not_in_channel": _INVITE,
    "token_expired": _LET_IN,
    "token_revoked": _LET_IN,
}
_CODE = re.compile(r"[a-z_]{1,64}")


@contextmanager
def asking() -> Iterator[None]:
    """Translate what the client raises. Answers are told by their codes: they may repeat what was sent."""
    from slack_sdk.errors import SlackApiError

    try:
        yield
    except SlackApiError as error:
        raise _of_answer(error.response) from None
    except URLError as error:
        # urllib wraps what happens until the request has gone out, and nothing later. So no server has it
        # whole: there was no connection, or it broke before the last byte.
        kind = type(error.reason).__name__
        raise DeliveryUnavailableError(f"no connection to Slack ({kind}); nothing was sent") from error
    except (OSError, HTTPException) as error:
        kind = type(error).__name__
        raise DeliveryUnknownError(f"the connection to Slack broke before its answer ({kind})") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # The client does not check what it is sent.
        kind = type(error).__name__
        raise DeliveryUnknownError(f"Slack's answer could not be read ({kind})") from None


def _of_answer(response: SlackResponse) -> ChannelError:
    status = response.status_code
    code = response.data.get("error") if isinstance(response.data, dict) else None
    if not (isinstance(code, str) and _CODE.fullmatch(code)):
        code = None
    told = f"HTTP {status}, {code}" if code else f"HTTP {status}"
    if status == 429 or code in _LATER:
        return DeliveryUnavailableError(
            f"Slack takes nothing now ({told})", retry_after=_retry_after(response.headers)
        )
    if status >= 500 or code in _PERHAPS_DONE or (code is None and status < 400):
        return DeliveryUnknownError(f"Slack did not say whether it has done it ({told})")
    mend = f"; {_MENDS[code]}" if code in _MENDS else ""
    return DeliveryRefusedError(f"Slack refused it ({told}){mend}")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait that Slack states."""
    for name, value in headers.items():
        if name.lower() == "retry-after":
            try:
                seconds = float(value)
            except ValueError:
                return None
            return seconds if 0 <= seconds < math.inf else None
    return None
