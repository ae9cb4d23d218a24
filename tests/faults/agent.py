"""The agent of the fault run, and the channel its replies go out on."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Generator, Mapping
from typing import Any, ClassVar

from inturn.agent import Agent
from inturn.agent.provider import ModelReply, ModelRequest
from inturn.settings import Settings
from tests.channels import RecordingChannel
from tests.faults.control import here

control = here()


class Model:
    """Takes a moment, and says the message back."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def generate(self, request: ModelRequest) -> ModelReply:
        time.sleep(random.uniform(0, 2 * self._seconds))
        reply = ModelReply({"message": f"re: {request.messages[-1].content}"})
        control.die_at("model")
        return reply

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        reply = self.generate(request)
        yield json.dumps(reply.data)
        return reply


class Channel(RecordingChannel):
    """Dies before or after it has sent something, where a token says so."""

    name: ClassVar[str] = "faults"

    def send(self, address: Mapping[str, Any], text: str) -> str:
        control.die_at("sending")
        name = super().send(address, text)
        control.die_at("sent")
        return name


def channel(settings: Settings) -> Channel:
    """The channel to the run's receiver."""
    return Channel(os.environ["FAULTS_RECEIVER"])


agent = Agent(
    "echo",
    provider=Model(float(os.environ.get("FAULTS_MODEL_SECONDS", "0.02"))),
    fallback_message="Sorry, that did not work.",
)
