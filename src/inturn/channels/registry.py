"""load_channels: the channels that the settings ask for."""

from __future__ import annotations

import re
from typing import Any

from inturn.channels.channel import Channel
from inturn.errors import ConfigurationError
from inturn.loading import load_path
from inturn.settings import Settings

BUILT_IN: dict[str, str] = {
    "slack": "inturn.channels.slack:from_settings",
    "sms": "inturn.channels.sms:from_settings",
}
"""Name -> `module:function`; the function makes the channel of the settings, or None if it is not set up."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def load_channels(settings: Settings) -> dict[str, Channel]:
    """Make the channels, by name: those that `INTURN_CHANNELS` names, and those built in that are set up.

    `INTURN_CHANNELS` is a list of dotted paths `package.module:name`, separated by commas. Each is a
    `Channel`, or a function of the settings that makes one, or None if it is not set up. One that has the
    name of a channel built in takes its place, whose settings are not looked at then. Modules are also
    looked for in the current directory. Raises `ConfigurationError` that says what is wrong; what a module
    itself raises while it is imported is raised as it is.
    """
    channels: dict[str, Channel] = {}
    for path in filter(None, map(str.strip, settings.channels.split(","))):
        made = _make(path, settings)
        if made is None:
            continue
        name = getattr(made, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"the channel {path} has the name {name!r}; give it one of small letters, digits, - and _"
            )
        if name in channels:
            raise ConfigurationError(
                f"INTURN_CHANNELS: two channels are called {name!r}; the second is {path}"
            )
        channels[name] = made
    for name, path in BUILT_IN.items():
        if name not in channels and (made := _make(path, settings)) is not None:
            channels[name] = made
    return channels


def list_channels(channels: dict[str, Channel]) -> dict[str, str]:
    """Each channel's name with `on`, and those built in that are not in `channels` with `not set up`."""
    return {**dict.fromkeys(BUILT_IN, "not set up"), **dict.fromkeys(channels, "on")}


def _make(path: str, settings: Settings) -> Channel | None:
    module, name = load_path(path, "the channel")
    if not hasattr(module, name):
        raise ConfigurationError(f"INTURN_CHANNELS: module {module.__name__!r} has no {name!r}")
    found: Any = getattr(module, name)
    made = found if isinstance(found, Channel) or not callable(found) else found(settings)
    if made is not None and not isinstance(made, Channel):
        raise ConfigurationError(
            f"INTURN_CHANNELS: {path!r} is {type(made).__name__}; name a Channel, or a function of the "
            "settings that makes one"
        )
    return made
