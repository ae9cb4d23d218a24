"""Errors: what the client raises, and what servers report, as `ProviderError`s without conversation text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from inturn.errors import ProviderError, ProviderUnavailableError
from inturn.session.state import utcnow

if TYPE_CHECKING:
    import openai

_TRANSIENT = frozenset(
    {
        "overloaded_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "server_error",
        "slow_down",
        "vector_store_timeout",
    }
)
_CODE = re.compile(r"[\w.-]{1,64}")


@contextmanager
def calling(time_outs: Mapping[str, str]) -> Iterator[None]:
    """Translate what the client raises; `time_outs` words those of HTTP, by the names of their classes."""
    import httpx2
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        raise _of_status(error) from None
    except openai.APIConnectionError as error:
        kind = type(error.__cause__ or error).__name__
        raise ProviderUnavailableError(
            time_outs.get(kind, f"the connection to the provider failed ({kind})")
        ) from None
    except httpx2.HTTPError as error:
        # The client lets it through where the body of an error of the server breaks off.
        raise ProviderUnavailableError(
            f"the connection to the provider failed ({type(error).__name__})"
        ) from None
    except openai.APIResponseValidationError:
        raise ProviderError("the provider's answer could not be read") from None
    except openai.APIError as error:  # a server's report of an error, in the middle of a stream
        raise failed(error.code or error.type) from None
    except (openai.OpenAIError, ValueError) as error:
        raise ProviderError(f"the provider's answer could not be read ({type(error).__name__})") from None


@contextmanager
def reading(api: str) -> Iterator[None]:
    """Say that an answer has another form than that of `api`.

    The client does not check what it is sent; another kind of server may be behind base_url.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError):
        raise wrong_form(api) from None


def wrong_form(api: str) -> ProviderError:
    """The error for an answer that is none of `api`."""
    return ProviderError(f"the provider's answer has not the form of {api!r}; check base_url and api")


def broken_off() -> ProviderUnavailableError:
    """The error for a stream that ended before the answer did."""
    return ProviderUnavailableError("the answer broke off; what came of it is not used")


def garbled(error: ValueError) -> ProviderUnavailableError:
    """The error for a stream that cannot be read: it was damaged on its way, and the next may not be."""
    return ProviderUnavailableError(f"the answer arrived garbled ({type(error).__name__})")


def failed(code: str | None) -> ProviderError:
    """The error for a failure that the server reports in an answer; without a code it may be passing."""
    told = f"the provider failed to answer{_brackets(code)}"
    if code is None or code in _TRANSIENT or (code.isdigit() and _is_transient(int(code))):
        return ProviderUnavailableError(told)
    return ProviderError(told)


def none_answered(faults: Sequence[tuple[str, ProviderError]]) -> ProviderError:
    """The one error for several models that were asked in vain.

    It is retryable as the first one's is, after the shortest of the times that the providers asked for:
    then the first of them may answer.
    """
    if len(faults) == 1:
        return faults[0][1]
    waits = [
        error.retry_after
        for _, error in faults
        if isinstance(error, ProviderUnavailableError) and error.retry_after is not None
    ]
    return ProviderUnavailableError(
        "; ".join(f"{model!r}: {error}" for model, error in faults), retry_after=min(waits, default=None)
    )


def _of_status(error: openai.APIStatusError) -> ProviderError:
    # The body may repeat what was sent, so only its code is told.
    status = error.status_code
    told = f"HTTP {status}{_named(error.code, before=', ')}"
    if _is_transient(status):
        return ProviderUnavailableError(
            f"the provider cannot answer now ({told})", retry_after=_retry_after(error.response.headers)
        )
    if status in (401, 403):
        return ProviderError(f"the provider refused the key ({told}); check OPENAI_API_KEY")
    return ProviderError(f"the provider refused the request ({told})")


def _is_transient(status: int) -> bool:
    return status in (408, 409, 425, 429) or status >= 500


def _brackets(code: str | None) -> str:
    return f" ({named})" if (named := _named(code)) else ""


def _named(code: str | None, *, before: str = "") -> str:
    """A code as it may be told: what is none, but free text, is not."""
    return f"{before}{code}" if code and _CODE.fullmatch(code) else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait that `Retry-After` states, as a number or as a date."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - utcnow()).total_seconds()
        except (ValueError, TypeError):  # a date that is none, or without a zone
            return None
    return seconds if 0 <= seconds < math.inf else None
