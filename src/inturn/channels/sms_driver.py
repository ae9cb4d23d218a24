"""Driver: the official `twilio` package, loaded when it is needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from inturn.errors import MissingDriverError


def twilio(module: str) -> ModuleType:
    """The module `twilio.<module>`; raises `MissingDriverError` if the package is not installed."""
    try:
        return importlib.import_module(f"twilio.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "twilio":
            raise
        raise MissingDriverError(
            "the SMS channel needs twilio, which is not installed: pip install 'inturn[sms]'"
        ) from error
