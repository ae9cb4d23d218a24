"""A RabbitMQ of a test's own, where the machine has one installed (Debian: `rabbitmq-server`)."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from pathlib import Path

import pytest
from amqp import AMQPError, Connection, PreconditionFailed

from inturn.embedded.ports import free_port
from inturn.embedded.tether import tethered
from tests.waiting import wait_until

_SERVERS = (Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), Path("/opt/rabbitmq/sbin/rabbitmq-server"))
"""Debian's own on the PATH becomes the user `rabbitmq` first, to whom a test's directories are closed."""


class OwnRabbitMQ:
    """A node on loopback that the test may kill and start again; its data stay. Skips where there is none."""

    def __init__(self, directory: Path) -> None:
        self._server = _find_server()
        self._directory = directory
        self._port = free_port()
        self._names_port = free_port()
        self._dist_port = free_port()
        self._names: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._name = f"test-{secrets.token_hex(4)}@localhost"
        self._log = directory / "rabbitmq.log"
        self.address = f"127.0.0.1:{self._port}"
        self.url = f"amqp://guest:guest@{self.address}//"

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self._process is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{self._port}\n"
            "loopback_users = none\n"
            "disk_free_limit.absolute = 50MB\n"
        )
        (self._directory / "plugins").write_text("[].")
        if self._names is None:
            # Erlang's name server: RabbitMQ would start one for the whole machine, and leave it behind.
            self._names = self._run("epmd", "-port", str(self._names_port), "-address", "127.0.0.1")
        self._process = self._run(str(self._server))
        wait_until(self._answers, timeout=120, what=f"RabbitMQ to answer; {self._log}")

    def kill(self) -> None:
        """End it at once, as a crash would, with all its children."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def pause(self) -> None:
        """Let it stand still: connections are open, and nobody answers."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def settle(self) -> None:
        """Have it write down which queues there are: release 3 does so every few minutes, and when it stops.

        A quorum queue that is younger does not survive that its only node is killed.
        """
        command = [str(self._server.with_name("rabbitmqctl")), "eval", "[dets:sync(T) || T <- dets:all()]."]
        subprocess.run(command, env=self._environment(), check=True, capture_output=True, timeout=120)

    def connection(self) -> Connection:
        """A connection to it, to be used in a `with` statement."""
        return Connection(self.address, connect_timeout=10)

    def kind_of(self, queue: str) -> str:
        """`quorum` or `classic`, by what it takes for the same; `AMQPError` where it is neither."""
        with self.connection() as connection:
            try:
                connection.channel().queue_declare(queue, durable=True, auto_delete=False)
            except PreconditionFailed as error:
                return "quorum" if "'quorum'" in str(error) else "other"
            return "classic"

    def _environment(self) -> dict[str, str]:
        place = str(self._directory)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": place,
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_CONFIG_FILE": f"{place}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{place}/plugins",
            "RABBITMQ_MNESIA_BASE": place,
            "RABBITMQ_LOG_BASE": place,
            "RABBITMQ_LOGS": "-",
            # The script becomes the server then, so that what ends the one ends the other.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._names_port),
            # Schedulers that wait busily would take the machine from the test.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
        }

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                tethered(command, on_death=signal.SIGKILL),
                cwd=self._directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"RabbitMQ has ended:\n{self._log.read_text()[-3000:]}"
        try:
            with self.connection() as connection:
                return bool(connection.connected)
        except (OSError, AMQPError):
            return False

    def __enter__(self) -> OwnRabbitMQ:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._names is not None:
            _end(self._names)
            self._names = None


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _find_server() -> Path:
    found = next((path for path in _SERVERS if path.exists()), None)
    if found is None:
        pytest.skip("no RabbitMQ is installed: apt-get install --no-install-recommends rabbitmq-server")
    return found
