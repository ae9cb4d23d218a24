"""StreamWriter: one thread per process that writes the text of all its replies in one pipeline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from inturn.contract import Piece
from inturn.errors import MailboxError
from inturn.turns.lease import Lease
from inturn.turns.streams import Streams, Write

log = structlog.get_logger(__name__)

WRITE_EVERY = 0.05
"""Seconds between two writes: pieces that come faster travel together."""


class StreamWriter:
    """Writes what is added to its open replies, at once where it has nothing else to do.

    A reply goes on whatever happens here: text that could not be written comes with the next write that can.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._waiting: set[OpenReply] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start writing; ends with the process."""
        self._thread = threading.Thread(target=self._run, name="inturn-streams", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop writing."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    @contextmanager
    def open(self, lease: Lease, turn_id: str) -> Iterator[OpenReply]:
        """Give the reply to add pieces to; what was not written by the end of the block is dropped."""
        reply = OpenReply(self, lease, turn_id)
        try:
            yield reply
        finally:
            reply.close()

    def want(self, reply: OpenReply) -> None:
        """Note that `reply` has something to write."""
        with self._lock:
            self._waiting.add(reply)
        self._wake.set()

    def flush(self) -> None:
        """Write once what there is to write."""
        with self._lock:
            replies, self._waiting = self._waiting, set()
        taken = [(reply, write) for reply in replies if (write := reply.take()) is not None]
        done = False
        try:
            done = self.emit([write for _, write in taken])
        finally:
            for reply, _ in taken:
                reply.wrote(done)

    def emit(self, writes: list[Write]) -> bool:
        """Write these; False if Redis could not."""
        try:
            self._streams.emit(writes)
        except MailboxError as error:
            log.warning("text not streamed", replies=len(writes), error=str(error))
            return False
        return True

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.wait()
            self._wake.clear()
            try:
                self.flush()
            except Exception:
                # The thread must outlive any single failure: without it no reply of this process is streamed.
                log.exception("text not streamed")
            self._stopped.wait(WRITE_EVERY)


class OpenReply:
    """A reply that is being written: it never raises and, until `end`, never waits.

    An owner's first write begins the reply anew in the stream, because another owner may have written to it
    before; so does the first write after one that may have failed, with all the text so far.
    """

    def __init__(self, writer: StreamWriter, lease: Lease, turn_id: str) -> None:
        self._writer = writer
        self._lease = lease
        self._turn_id = turn_id
        self._changed = threading.Condition()
        self._parts: list[str] = []
        """The reply so far."""
        self._written = 0
        """How many of its parts were written."""
        self._anew = True
        """Whether the next write begins the reply anew."""
        self._number = 0
        self._busy = False
        """Whether a write is on its way."""
        self._closed = False

    def add(self, piece: Piece) -> None:
        """Have the piece written soon."""
        # What cannot be encoded would cost the other replies in the pipeline their text.
        text = piece.text.encode("utf-8", "replace").decode()
        with self._changed:
            if piece.restarts:
                self._parts, self._anew = [], True
            self._parts.append(text)
        self._writer.want(self)

    def end(self, message: str) -> None:
        """Write that the reply is complete, and whatever it takes for readers to have just `message`."""
        self.close()
        if self._anew or "".join(self._parts) != message:
            self._parts, self._anew = [message], True
        self._writer.emit([self._next(ends=True)])

    def close(self) -> None:
        """Write nothing more; waits for the write that is on its way."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._busy)

    def take(self) -> Write | None:
        """The next write, for the writer, which says with `wrote` whether it went well."""
        with self._changed:
            if self._closed or not (self._anew or self._written < len(self._parts)):
                return None
            self._busy = True
            return self._next()

    def wrote(self, done: bool) -> None:
        """The write that was taken is over."""
        with self._changed:
            self._busy = False
            self._anew = self._anew or not done
            self._changed.notify_all()

    def _next(self, *, ends: bool = False) -> Write:
        text = "".join(self._parts if self._anew else self._parts[self._written :])
        self._number += 1
        write = Write(self._lease, self._turn_id, self._number, text, restarts=self._anew, ends=ends)
        self._written, self._anew = len(self._parts), False
        return write
