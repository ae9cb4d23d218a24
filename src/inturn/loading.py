"""load_path: what a dotted path names, as in `INTURN_AGENT=examples.booking:agent`."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from inturn.errors import ConfigurationError


def load_path(path: str, what: str) -> tuple[ModuleType, str]:
    """Import the module of `package.module:name`; gives it with the name, which it may not have.

    Modules are also looked for in the current directory. Raises `ConfigurationError` that says what is wrong,
    and that the path is one of `what`, such as "the agent"; what the module itself raises while it is
    imported is raised as it is.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name) or module_name.startswith("."):
        raise ConfigurationError(
            f"{path!r} is no dotted path of {what}; write package.module:name, such as examples.booking:agent"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module_name), name
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"there is no module {error.name!r} for {what} {path!r}; start from the directory that holds it, "
            "or install it"
        ) from None
