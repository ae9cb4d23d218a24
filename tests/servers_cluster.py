"""A Valkey Cluster of three primaries on the loopback interface, without replicas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis

from inturn.embedded.ports import free_port
from inturn.embedded.valkey import EmbeddedValkey
from tests.waiting import wait_until

SLOTS = 16_384
NODES = 3


class ValkeyCluster:
    """Its nodes, each with an equal share of the slots, in order; a node may be killed and started again."""

    def __init__(self, nodes: list[EmbeddedValkey]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The URL of its first node."""
        return self.nodes[0].url

    def node_of(self, key: str) -> EmbeddedValkey:
        """The node that has a key."""
        with Redis.from_url(self.url) as client:
            slot = int(_call(client, "CLUSTER", "KEYSLOT", key))
        return self.nodes[min(slot * NODES // SLOTS, NODES - 1)]

    def scan(self, prefix: str) -> list[str]:
        """The names of all keys that have `prefix` in them."""
        found: list[str] = []
        for node in self.nodes:
            with Redis.from_url(node.url, decode_responses=True) as client:
                found += client.scan_iter(match=f"*{prefix}*", count=1000)
        return sorted(found)

    def wait(self) -> None:
        """Wait until every node says that the cluster is whole."""
        for node in self.nodes:
            with Redis.from_url(node.url, decode_responses=True) as client:
                wait_until(partial(_is_whole, client), timeout=60, what="a whole cluster")


@contextmanager
def valkey_cluster(directory: Path) -> Iterator[ValkeyCluster]:
    """Run a cluster in `directory`."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(_node(directory / f"node-{number}")) for number in range(NODES)]
        bounds = [-(-SLOTS * number // NODES) for number in range(NODES + 1)]
        for number, node in enumerate(nodes):
            with Redis.from_url(node.url) as client:
                _call(client, "CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
                _call(client, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        with Redis.from_url(nodes[0].url) as client:
            for node in nodes[1:]:
                _call(client, "CLUSTER", "MEET", "127.0.0.1", node.port, _bus_port(node))
        cluster = ValkeyCluster(nodes)
        cluster.wait()
        yield cluster


def _node(directory: Path) -> EmbeddedValkey:
    return EmbeddedValkey(
        directory,
        config={
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": "2000",
            # The buckets of the others go on while one node is away.
            "cluster-require-full-coverage": "no",
            "cluster-port": str(free_port()),
        },
    )


def _bus_port(node: EmbeddedValkey) -> int:
    command = node.command
    return int(command[command.index("--cluster-port") + 1])


def _is_whole(client: Redis) -> bool:
    info = _call(client, "CLUSTER", "INFO")
    if isinstance(info, str):
        info = dict(line.split(":", 1) for line in info.split())
    wanted = {"cluster_state": "ok", "cluster_slots_ok": str(SLOTS), "cluster_known_nodes": str(NODES)}
    return all(info[name] == value for name, value in wanted.items())


def _call(client: Any, *words: str | int) -> Any:
    return client.execute_command(*words)
