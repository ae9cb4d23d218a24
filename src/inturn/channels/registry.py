"""load_channels: the channels that the settings ask for."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

from inturn.channels.channel import Channel
from inturn.errors import ConfigurationError
from inturn.settings import Settings

BUILT_IN: dict[str, str] = {
    "slack": "inturn.channels.slack:from_settings",
    "sms": "inturn.channels.sms:from_settings",
}
"""Name -> `module:function`; the function makes the channel of the settings, or None if it is not set up."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def load_channels(settings: Settings) -> dict[str, Channel]:
    """Make the channels: those built in that are set up, and those that `INTURN_CHANNELS` names, by name.

    `INTURN_CHANNELS` is a list of dotted paths `package.module:name`, separated by commas. Each is a
    `Channel`, or a function of the settings that makes one, or None if it is not set up. Modules are also
    looked for in the current directory. Raises `ConfigurationError` that says what is wrong; what a module
    itself raises while it is imported is raised as it is.
    """
    channels: dict[str, Channel] = {}
    for path in [*BUILT_IN.values(), *filter(None, map(str.strip, settings.channels.split(",")))]:
        made = _make(path, settings)
        if made is None:
            continue
        name = getattr(made, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"the channel {path} has the name {name!r}; give it one of small letters, digits, - and _"
            )
        if name in channels:
            raise ConfigurationError(f"two channels are called {name!r}; the second is {path}")
        channels[name] = made
    return channels


def list_channels(channels: dict[str, Channel]) -> dict[str, str]:
    """Each channel's name with `on`, and those built in that are not in `channels` with `not set up`."""
    return {**dict.fromkeys(BUILT_IN, "not set up"), **dict.fromkeys(channels, "on")}


def _make(path: str, settings: Settings) -> Channel | None:
    found = _find(path)
    made = found if isinstance(found, Channel) or not callable(found) else found(settings)
    if made is not None and not isinstance(made, Channel):
        raise ConfigurationError(
            f"INTURN_CHANNELS: {path!r} is {type(made).__name__}; name a Channel, or a function of the "
            "settings that makes one"
        )
    return made


def _find(path: str) -> Any:
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name) or module_name.startswith("."):
        raise ConfigurationError(f"INTURN_CHANNELS: {path!r} is no dotted path; write package.module:name")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"INTURN_CHANNELS: there is no module {error.name!r} for the channel {path!r}; start from the "
            "directory that holds it, or install it"
        ) from None
    if not hasattr(module, name):
        raise ConfigurationError(f"INTURN_CHANNELS: module {module_name!r} has no {name!r}")
    return getattr(module, name)
