"""EmbeddedValkey: starts, keeps its data, and never outlives who started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from inturn.embedded.valkey import EmbeddedValkey
from inturn.errors import ConfigurationError
from tests.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "a folder") as server:
        yield server


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_started_server_answers_and_refuses_to_evict(server: EmbeddedValkey) -> None:
    with Redis.from_url(server.url) as client:
        assert client.ping()
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert client.info("server")["process_id"] == server.pid


def test_a_killed_server_starts_again_on_the_same_port_with_its_data(server: EmbeddedValkey) -> None:
    with Redis.from_url(server.url) as client:
        client.set("answer", "42")
        url, pid = server.url, server.pid

        server.kill()

        assert not alive(pid)
        server.start()
        assert server.url == url
        assert client.get("answer") == b"42"


def test_a_stopped_server_keeps_its_data_and_may_be_stopped_twice(server: EmbeddedValkey) -> None:
    with Redis.from_url(server.url) as client:
        client.set("answer", "42")
        server.stop()
        server.stop()
        server.kill()

        server.start()

        assert client.get("answer") == b"42"


def test_without_appendonly_nothing_is_kept(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path, appendonly=False) as server, Redis.from_url(server.url) as client:
        client.set("answer", "42")
        server.stop()

        server.start()

        assert client.get("answer") is None


def test_a_setting_that_valkey_does_not_know_is_shown_with_the_log(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path, config={"no-such-setting": "1"})
    with pytest.raises(ConfigurationError, match="no-such-setting"):
        server.start()


def test_a_port_that_is_taken_is_an_error_even_if_another_valkey_answers_there(
    server: EmbeddedValkey, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="Address already in use"):
        EmbeddedValkey(tmp_path / "another", port=server.port).start()


def test_a_data_folder_has_one_server_at_a_time(server: EmbeddedValkey) -> None:
    with pytest.raises(ConfigurationError, match="another embedded Valkey uses"):
        EmbeddedValkey(server.data_dir).start()


def test_two_servers_live_side_by_side(server: EmbeddedValkey, tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "b") as other:
        assert other.port != server.port
        with Redis.from_url(server.url) as one, Redis.from_url(other.url) as two:
            one.set("name", "one")
            assert two.get("name") is None


PARENT = """
import sys, time
from inturn.embedded.valkey import EmbeddedValkey
server = EmbeddedValkey(sys.argv[1]).start()
print(server.pid, server.port, flush=True)
time.sleep(600)
"""


INTERRUPTED_PARENT = """
import signal, sys, time
import redis
from inturn.embedded.valkey import EmbeddedValkey
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
with EmbeddedValkey(sys.argv[1]) as server:
    try:
        print("started", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        if redis.Redis(port=server.port).ping():
            print("the server answers", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid, port = map(int, parent.stdout.readline().split())

        parent.send_signal(how)

    def port_is_closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    wait_until(port_is_closed, what="the server's end")
    wait_until(lambda: not alive(pid), what="the server's end")


def test_ctrl_c_leaves_the_server_to_those_who_still_need_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "started\n"

        os.killpg(parent.pid, signal.SIGINT)

        assert parent.stdout.readline() == "the server answers\n"
