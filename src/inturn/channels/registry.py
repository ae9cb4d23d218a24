"""load_channels: the channels that the settings ask for."""

from __future__ import annotations

import importlib

from inturn.channels.channel import Channel
from inturn.errors import ConfigurationError
from inturn.settings import Settings

BUILT_IN: dict[str, str] = {}
"""Name -> `module:function`; the function makes the channel of the settings, or None if it is not set up."""


def load_channels(settings: Settings) -> dict[str, Channel]:
    """Make the channels: those built in that are set up, and those that `INTURN_CHANNELS` names, by name.

    `INTURN_CHANNELS` is a list of dotted paths `package.module:name`, separated by commas; each is a `Channel`,
    or a function of the settings that makes one. Raises `ConfigurationError` that says what is wrong.
    """
    channels: dict[str, Channel] = {}
    for path in [*BUILT_IN.values(), *filter(None, map(str.strip, settings.channels.split(",")))]:
        made = _load(path, settings)
        if made is None:
            continue
        if made.name in channels:
            raise ConfigurationError(f"two channels are called {made.name!r}; the second is {path}")
        channels[made.name] = made
    return channels


def _load(path: str, settings: Settings) -> Channel | None:
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ConfigurationError(f"INTURN_CHANNELS: {path!r} is no dotted path; write package.module:name")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(f"INTURN_CHANNELS: there is no module {module_name!r}") from None
    except AttributeError:
        raise ConfigurationError(f"INTURN_CHANNELS: module {module_name!r} has no {name!r}") from None
    made = found if isinstance(found, Channel) else found(settings)
    if made is not None and not isinstance(made, Channel):
        raise ConfigurationError(f"INTURN_CHANNELS: {path!r} is {type(made).__name__}, not a Channel")
    return made
