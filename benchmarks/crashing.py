"""The worker's Celery app, with an agent that takes no time, and with points at which a process dies once.

`BENCH_POINT` names the point; the first process of a fleet that comes there writes the time and its number
into `BENCH_CRASH_FILE` and dies by SIGKILL, all others pass:

- `offered`: a producer (`python -m benchmarks.crashing <session> <turn>`) has offered a turn, no more
- `begin`: a worker has the message in hand and has not begun
- `model`: it is about to ask the model
- `finish`: the turn is committed, its result is not stored, and it is still in the mailbox
- `yield`: it has yielded the session and not published the next message
- `empty`: the mailbox is empty and the message is not acknowledged

`poison` kills every process that asks the model. `hold` kills nobody: the first one stays in the model's call
for `BENCH_HOLD` seconds. `unavailable` and `refuses` are models that cannot answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Generator
from typing import Any

from inturn.agent import Agent
from inturn.agent.provider import ModelReply, ModelRequest
from inturn.errors import ProviderError, ProviderUnavailableError
from inturn.turns import Finished, Mailbox
from worker import drive
from worker.celery import app as app

POINT = os.environ.get("BENCH_POINT", "")


def first() -> bool:
    """Whether this process is the first of its fleet to ask; notes when, and who."""
    try:
        handle = os.open(os.environ["BENCH_CRASH_FILE"], os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    os.write(handle, f"{time.time()} {os.getpid()}".encode())
    os.close(handle)
    return True


def die_at(point: str) -> None:
    """Die if this is the point, and nobody died before."""
    if point == POINT and first():
        os.kill(os.getpid(), signal.SIGKILL)


class Model:
    """Answers at once, and notes each call in a journal."""

    def __init__(self) -> None:
        self._calls = 0

    def generate(self, request: ModelRequest) -> ModelReply:
        """Answer, or do what the point says."""
        text = request.messages[-1].content
        line = json.dumps([text, os.getpid(), time.time()]) + "\n"
        handle = os.open(os.environ["BENCH_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.close(handle)
        die_at("model")
        self._calls += 1
        if POINT == "poison":
            first()
            os.kill(os.getpid(), signal.SIGKILL)
        elif POINT == "strand" or (POINT == "hold" and first()):
            time.sleep(float(os.environ["BENCH_HOLD"]))
        elif POINT == "unavailable" and self._calls < 5:
            raise ProviderUnavailableError
        elif POINT == "refuses":
            raise ProviderError
        return ModelReply({"message": "yes"})

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """The same in one piece."""
        reply = self.generate(request)
        yield json.dumps(dict(reply.data))
        return reply


agent = Agent("bench", provider=Model(), fallback_message="Sorry.")


def _patch() -> None:
    begin, finish, publish = (
        Mailbox.begin,
        Mailbox.finish,
        drive.publish_turn,  # type: ignore[attr-defined]
    )

    def dying_begin(self: Mailbox, *args: Any, **options: Any) -> Any:
        die_at("begin")
        return begin(self, *args, **options)

    def dying_finish(self: Mailbox, *args: Any, **options: Any) -> Finished:
        die_at("finish")
        finished = finish(self, *args, **options)
        if finished.outcome == "empty":
            die_at("empty")
        return finished

    def dying_publish(*args: Any, **options: Any) -> None:
        die_at("yield")
        publish(*args, **options)

    Mailbox.begin = dying_begin  # type: ignore[method-assign]
    Mailbox.finish = dying_finish  # type: ignore[method-assign]
    drive.publish_turn = dying_publish  # type: ignore[attr-defined]


if POINT:
    _patch()


def main(session_id: str, number: str) -> None:
    """Be a producer that dies after it has offered a turn."""
    import inturn.client

    inturn.client.publish_turn = lambda *_, **__: die_at("offered")  # type: ignore[attr-defined]
    with inturn.client.Client() as client:
        client.respond(session_id, session_id, turn_id=number)


if __name__ == "__main__":
    main(*sys.argv[1:])
