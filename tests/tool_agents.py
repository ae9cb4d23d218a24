"""An agent for worker tests of tools: it pays, and dies where the message says.

`pay` calls the tool. `die before`, `die inside` and `die after` end the process with SIGKILL, once: after the
model has asked for the call and before it was made, while it is made, and once its result is known. `hold`
keeps the call waiting for as long as a file stands. The journal has a line for each call.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from inturn import Agent, TurnContext
from inturn.agent import ModelReply, ModelRequest, ScriptedProvider, ToolCall

JOURNAL = os.environ.get("TEST_JOURNAL", os.devnull)


def _once(point: str, text: str) -> None:
    marker = Path(f"{JOURNAL}.{point}.died")
    if f"die {point}" in text and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def answer(request: ModelRequest) -> ModelReply | str:
    """Ask for one payment, then tell what came of it."""
    text = request.messages[-1].content
    if request.rounds:
        _once("after", text)
        return f"It says: {request.rounds[0].outputs[0]}"
    if "pay" not in text:
        return f"you said: {text}"
    _once("before", text)
    return ModelReply({}, tool_calls=(ToolCall("call-1", "pay", json.dumps({"text": text})),))


agent = Agent("cashier", provider=ScriptedProvider(answer))


@agent.tool(timeout=60)
def pay(turn: TurnContext, text: str) -> str:
    """Pay."""
    with Path(JOURNAL).open("a") as journal:
        journal.write(f"{text}\n")
    while "hold" in text and Path(f"{JOURNAL}.hold").exists():
        time.sleep(0.02)
    _once("inside", text)
    return f"paid {turn.call_id.rpartition('/')[2]}"
