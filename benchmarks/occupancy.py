"""The worker's agent for `benchmarks.capacity --measure`: a model that takes as long as its message says."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator

from inturn.agent import Agent
from inturn.agent.provider import ModelReply, ModelRequest


class Model:
    """Sleeps, and notes when it began."""

    def generate(self, request: ModelRequest) -> ModelReply:
        """Take `<number> <seconds>`: which turn it is, and how long it takes."""
        number, seconds = request.messages[-1].content.split()
        line = json.dumps([int(number), time.time()]) + "\n"
        handle = os.open(os.environ["BENCH_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.close(handle)
        time.sleep(float(seconds))
        return ModelReply({"message": "yes"})

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """The same in one piece."""
        reply = self.generate(request)
        yield json.dumps(dict(reply.data))
        return reply


agent = Agent("sleeper", provider=Model())
