"""Ports for servers on the loopback interface."""

from __future__ import annotations

import random
import socket

# Below the ranges that Linux (32768-60999) and macOS (49152-65535) take clients' own ports from: a client
# that tries to reach a stopped server on one of those can be given the server's port, and connects to itself.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens now, and which no client will be given by chance."""
    for port in random.sample(_PORTS, 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {_PORTS.start} and {_PORTS.stop}")
