"""A producer: offers its turns as webhooks do, which come again, with the same ID, until they are answered.

It keeps a log of what it offers, and one of what it was told yes for, and goes on after that when it was
killed. What it was not told yes for before it died comes again, also where enough was offered meanwhile: it
may have been accepted. `python -m tests.faults.producer <index> <start>` with the load in the environment.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from pathlib import Path

from inturn.client import Client, TurnHandle
from inturn.errors import MailboxFullError, MailboxUnavailableError
from inturn.session.state import utcnow
from tests.faults import releases
from tests.faults.control import Control, here
from tests.faults.load import Load, Turn

PATIENCE = 3.0
"""Seconds after which a sender takes an answer for lost, and sends the event again."""
AGAIN = 0.05
"""The share of events that come again although they were answered."""
THREADS = 6


class DyingClient(Client):
    """Dies between the offer and its message, where a token says so."""

    control: Control

    def _publish(self, session_id: str, turn_id: str) -> None:
        self.control.die_at("offer")
        super()._publish(session_id, turn_id)


class Producer:
    """Offers the turns of its sessions: each session's one after the other, the sessions side by side."""

    def __init__(self, load: Load, index: int, start: float, directory: Path) -> None:
        self._load = load
        self._start = start
        self._log = os.open(log_file(directory, index), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._others = log_file(directory, (index + 1) % load.producers)
        self._index = index
        self._offers = os.open(directory / f"offered.{index}.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self._told = {(session_id, number) for session_id, number, *_ in read_log(directory, index)}
        self._untold = frozenset(self._offered() - self._told)
        self._client = DyingClient()
        self._client.control = here()
        self._calls = ThreadPoolExecutor(4 * THREADS)

    def run(self) -> None:
        """Offer all that is left."""
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(self._offer_all, lane) for lane in range(THREADS)]:
                done.result()
        self._calls.shutdown(cancel_futures=True)

    def _offer_all(self, lane: int) -> None:
        for turn in self._load.plan():
            if turn.is_more and self._client.control.enough.exists():
                break
            mine = self._load.lane(turn.session_id, THREADS) == (self._index, lane)
            if not mine or (turn.session_id, turn.number) in self._told:
                if turn.is_more:
                    time.sleep(max(0.0, self._start + turn.due - time.monotonic()))
                continue
            time.sleep(max(0.0, self._start + turn.due - time.monotonic()))
            self._have_accepted(turn)
            if random.random() < AGAIN:
                self._call(turn)
            if random.random() < AGAIN:
                self._offer_anothers()
        for session_id, number in sorted(self._untold):
            mine = self._load.lane(session_id, THREADS) == (self._index, lane)
            if mine and (session_id, number) not in self._told:
                self._have_accepted(Turn(session_id, number, 0))

    def _have_accepted(self, turn: Turn) -> None:
        """Offer it until it is answered, and note before and after that it was."""
        os.write(self._offers, (json.dumps([turn.session_id, turn.number]) + "\n").encode())
        self._offer(turn)
        self._note(turn.session_id, turn.number, utcnow().isoformat(), releases.VERSION)
        self._told.add((turn.session_id, turn.number))

    def _offered(self) -> set[tuple[str, int]]:
        """What it offered in former lives; a line that a death cut short was not offered yet."""
        lines = os.pread(self._offers, os.fstat(self._offers).st_size, 0).split(b"\n")[:-1]
        return {(session_id, number) for session_id, number in map(json.loads, lines)}

    def _offer(self, turn: Turn) -> None:
        """Send the event until it is answered, also while the call before still hangs."""
        pause = 0.1
        while True:
            try:
                self._call(turn).result(PATIENCE)
            except (MailboxUnavailableError, MailboxFullError, TooLate) as error:
                self._client.control.note("sent again", type(error).__name__)
                time.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, 2.0)
            else:
                return

    def _call(self, turn: Turn) -> Future[TurnHandle]:
        delivered = self._load.is_delivered(turn.session_id)
        return self._calls.submit(
            self._client.respond,
            turn.session_id,
            turn.text,
            turn_id=turn.key,
            channel="faults" if delivered else None,
            address={"to": turn.session_id} if delivered else None,
        )

    def _offer_anothers(self) -> None:
        """An event that another producer was told yes for comes here, too."""
        if not self._others.exists():
            return
        with self._others.open("rb") as log:
            log.seek(max(0, self._others.stat().st_size - 2000))
            lines = [line for line in log.read().split(b"\n")[1:-1] if line]
        if lines:
            session_id, number, *_ = json.loads(random.choice(lines))
            self._call(Turn(session_id, number, 0))

    def _note(self, *facts: object) -> None:
        os.write(self._log, (json.dumps(facts) + "\n").encode())


def log_file(directory: Path, index: int) -> Path:
    """What a producer was told yes for."""
    return directory / f"accepted.{index}.jsonl"


def read_log(directory: Path, index: int) -> list[tuple[str, int, str, int]]:
    """Its whole lines: session, number of the turn, time, release of the producer."""
    path = log_file(directory, index)
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [tuple(json.loads(line)) for line in lines]


if __name__ == "__main__":
    releases.become()
    control = here()
    load = Load(**json.loads(os.environ["FAULTS_LOAD"]))
    Producer(load, int(sys.argv[1]), float(sys.argv[2]), control.directory).run()
