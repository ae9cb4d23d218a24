"""load_agent: an agent by its dotted path, as in `INTURN_AGENT=examples.booking:agent`."""

from __future__ import annotations

import difflib

from inturn.agent.agent import Agent
from inturn.errors import ConfigurationError
from inturn.loading import load_path


def load_agent(path: str) -> Agent:
    """Import the agent at `package.module:name`; modules are also looked for in the current directory.

    Raises `ConfigurationError` that says what is wrong with the path; what the module itself raises while
    it is imported is raised as it is.
    """
    module, name = load_path(path, "the agent")
    agent = getattr(module, name, None)
    if isinstance(agent, Agent):
        return agent
    if agent is not None:
        raise ConfigurationError(f"{path!r} is {type(agent).__name__}, not Agent; name the agent itself")
    agents = [key for key, value in vars(module).items() if isinstance(value, Agent)]
    close = difflib.get_close_matches(name, agents, n=1) or agents
    mend = f"did you mean {module.__name__}:{close[0]}?" if close else f"define {name} = Agent(...) in it"
    raise ConfigurationError(f"module {module.__name__!r} has no {name!r}; {mend}")
