"""What the run and its processes tell each other: tokens by which a process dies, and a journal.

Both are files in the directory `FAULTS_DIR`, so they work whatever else is down.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

POINTS = {
    "offer": "producer: after the offer, before the message is published",
    "acquire": "after the lease was taken, before anything is done",
    "model": "after the model's answer, before the commit",
    "commit": "in the commit's transaction, after its statement and before COMMIT",
    "committed": "after the commit, before the result is stored",
    "result": "when all is done, before the turn leaves its mailbox and its result is stored",
    "finish": "after the turn has left its mailbox, before the next message is published",
    "ack": "when all is done, before the message is acknowledged",
    "sending": "delivery: a part is marked as on its way, and is not sent",
    "sent": "delivery: a part was sent, and is not counted",
}
"""The crash points, by name, in the order in which a turn passes them."""


OF_PRODUCERS = ("offer",)
OF_DELIVERIES = ("sending", "sent")


class Control:
    """One run's directory. `note` and `claim` are for any process; `arm` is the run's own."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.journal = self.directory / "journal.jsonl"
        self._handle: int | None = None

    def arm(self, point: str) -> None:
        """The next process that comes to this point dies."""
        self._token(point).touch()

    def disarm(self, point: str) -> None:
        """Take the token back, if nobody has claimed it."""
        self._token(point).unlink(missing_ok=True)

    def armed(self) -> list[str]:
        """The points whose token nobody has claimed yet."""
        return [point for point in POINTS if self._token(point).exists()]

    def claim(self, point: str) -> bool:
        """Whether this process is the one to die here: a token can be removed only once."""
        token = self._token(point)
        if not token.exists():  # cheaper than a failed removal, and nearly always so
            return False
        try:
            token.unlink()
        except FileNotFoundError:
            return False
        return True

    def die(self, point: str) -> NoReturn:
        """Note it, and die by SIGKILL."""
        self.note("death", point)
        while True:
            os.kill(os.getpid(), signal.SIGKILL)

    def die_at(self, point: str) -> None:
        """Die, if a token says so."""
        if self.claim(point):
            self.die(point)

    @property
    def enough(self) -> Path:
        """It is there once every fault has happened: no more turns are needed than were asked for."""
        return self.directory / "enough"

    def note(self, event: str, *facts: Any) -> None:
        """Write a line: the event, this process, the machine's monotonic time, and the facts."""
        if self._handle is None:
            self._handle = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        line = json.dumps([event, os.getpid(), time.monotonic(), *facts]) + "\n"
        os.write(self._handle, line.encode())

    def read(self, offset: int = 0) -> Iterator[list[Any]]:
        """The whole lines of the journal from a byte on."""
        if not self.journal.exists():
            return
        with self.journal.open("rb") as lines:
            lines.seek(offset)
            for line in lines:
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def _token(self, point: str) -> Path:
        return self.directory / f"token.{point}"


def here() -> Control:
    """That of the run this process belongs to."""
    return Control(os.environ["FAULTS_DIR"])
