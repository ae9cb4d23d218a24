"""An agent whose model has a price and a tool, for tests of what is counted.

`weigh` in a message has the tool called (`weigh nothing`: it fails), `refused` and `unavailable` fail, the
latter once for each message.
"""

from __future__ import annotations

from inturn.agent import Agent, ToolError
from inturn.agent.provider import ModelReply, ModelRequest, ToolCall
from inturn.agent.scripted import Scripted, ScriptedProvider
from inturn.contract import Usage
from inturn.errors import ProviderError, ProviderUnavailableError

_USAGE = Usage(calls=1, input_tokens=100, output_tokens=20, cached_tokens=40, cost=0.002)
_refused: set[str] = set()


def _answer(request: ModelRequest) -> Scripted:
    said = request.messages[-1].content
    if "refused" in said:
        return ProviderError()
    if "unavailable" in said and said not in _refused:
        _refused.add(said)
        return ProviderUnavailableError()
    if "weigh" in said and not request.rounds:
        what = '{"what": "nothing"}' if "nothing" in said else '{"what": "a feather"}'
        return ModelReply({}, _USAGE, tool_calls=(ToolCall("1", "weigh", what),))
    return ModelReply({"message": f"you said: {said}"}, _USAGE)


agent = Agent("dear", provider=ScriptedProvider(_answer))


@agent.tool
def weigh(what: str) -> str:
    """Weigh something."""
    if what == "nothing":
        raise ToolError("there is nothing to weigh")
    return "1 g"
