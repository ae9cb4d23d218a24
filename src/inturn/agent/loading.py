"""load_agent: an agent by its dotted path, as in `INTURN_AGENT=examples.booking:agent`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys

from inturn.agent.agent import Agent
from inturn.errors import ConfigurationError


def load_agent(path: str) -> Agent:
    """Import the agent at `package.module:name`; modules are also looked for in the current directory.

    Raises `ConfigurationError` that says what is wrong with the path; what the module itself raises while
    it is imported is raised as it is.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name) or module_name.startswith("."):
        raise ConfigurationError(
            f"{path!r} is no path of an agent; write package.module:name, such as examples.booking:agent"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"there is no module {error.name!r} for the agent {path!r}; start from the directory that holds "
            "it, or install it"
        ) from None
    agent = getattr(module, name, None)
    if isinstance(agent, Agent):
        return agent
    if agent is not None:
        raise ConfigurationError(f"{path!r} is {type(agent).__name__}, not Agent; name the agent itself")
    agents = [key for key, value in vars(module).items() if isinstance(value, Agent)]
    close = difflib.get_close_matches(name, agents, n=1) or agents
    mend = f"did you mean {module_name}:{close[0]}?" if close else f"define {name} = Agent(...) in it"
    raise ConfigurationError(f"module {module_name!r} has no {name!r}; {mend}")
