"""Batch: many calls in one round trip, or in one to each node of a cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from redis import Redis
    from redis.cluster import ClusterNode, RedisCluster

_PAUSES = (0.05, 0.2, 0.5)
"""Seconds before each further try of what a node of a cluster could not answer."""


class Call(NamedTuple):
    """One command, as it is sent, and a key of it: that says which node of a cluster has it."""

    key: str
    words: tuple[str | int, ...]


def send(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    """Send all of these; gives the replies. Raises the first of redis-py's errors, once all were sent."""
    replies = send_each(redis, calls)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def send_each(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    """Send all of these; gives the reply of each, or the error of redis-py that came for it.

    A server by itself that cannot be reached is raised. In a cluster every node gets a pipeline of its own,
    all at the same time (redis-py's cluster pipeline knows no EVALSHA, and waits for a connection to the
    second node while it holds one to the first): where a node is away, the calls of the others are answered.
    Calls must bear to be repeated.
    """
    if not calls:
        return []
    if (cluster := cluster_of(redis)) is not None:
        return _send_to_cluster(cluster, calls)
    return _pipeline(redis, calls)


def load_script(redis: Redis, text: str) -> None:
    """Load a script into the server, or into every primary of a cluster that can be reached."""
    from redis.exceptions import ConnectionError, TimeoutError

    cluster: Any = cluster_of(redis)
    if cluster is None:
        redis.script_load(text)
        return
    for node in cluster.get_primaries():
        try:
            cluster.get_redis_connection(node).script_load(text)
        except (ConnectionError, TimeoutError):
            continue  # whoever needs that node hears of it from the call itself


def cluster_of(client: object) -> RedisCluster | None:
    """The client, if it is one of a cluster: `connect` does not tell by its type."""
    from redis.cluster import RedisCluster

    return client if isinstance(client, RedisCluster) else None


def _pipeline(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    with redis.pipeline(transaction=False) as untyped:
        pipe: Any = untyped
        for call in calls:
            pipe.execute_command(*call.words)
        return list(pipe.execute(raise_on_error=False))


def _send_to_cluster(cluster: RedisCluster, calls: Sequence[Call]) -> list[Any]:
    from redis.exceptions import ConnectionError, MovedError, TimeoutError

    replies: dict[int, Any] = {}
    left: Sequence[int] = range(len(calls))
    for pause in (*_PAUSES, None):
        asked = _by_node(cluster, calls, left, replies)
        _ask(cluster, asked, calls, replies)
        again = [place for place in left if _may_be_repeated(replies[place])]
        if not again or pause is None:
            break
        if not all(isinstance(replies[place], MovedError) for place in again):
            time.sleep(pause)
        before = {place: node.name for node, places in asked.values() for place in places}
        _learn(cluster, {place: replies[place] for place in again}, before)
        # Whoever is silent costs seconds each time: such a node is asked again only if another has its place.
        left = [
            place
            for place in again
            if not isinstance(replies[place], TimeoutError)
            or isinstance(replies[place], ConnectionError)
            or (node := _node(cluster, calls[place].key)) is None
            or node.name != before.get(place)
        ]
        if not left:
            break
    return [replies[place] for place in range(len(calls))]


def _by_node(
    cluster: RedisCluster, calls: Sequence[Call], places: Sequence[int], replies: dict[int, Any]
) -> dict[str, tuple[ClusterNode, list[int]]]:
    from redis.exceptions import ClusterDownError

    asked: dict[str, tuple[ClusterNode, list[int]]] = {}
    for place in places:
        node = _node(cluster, calls[place].key)
        if node is None:
            replies[place] = ClusterDownError("no node of the cluster has the slot")
            continue
        asked.setdefault(node.name, (node, []))[1].append(place)
    return asked


def _ask(
    cluster: RedisCluster,
    asked: Mapping[str, tuple[ClusterNode, list[int]]],
    calls: Sequence[Call],
    replies: dict[int, Any],
) -> None:
    from redis.exceptions import AskError, MovedError, RedisError

    def ask(node: ClusterNode, places: list[int]) -> list[Any]:
        try:
            return _pipeline(cluster.get_redis_connection(node), [calls[place] for place in places])
        except RedisError as error:
            return [error] * len(places)

    groups = list(asked.values())
    if len(groups) == 1:
        found = [ask(*groups[0])]
    else:
        with ThreadPoolExecutor(max(1, len(groups))) as threads:
            found = list(threads.map(lambda group: ask(*group), groups))
    stuck: dict[int, Exception] = {}
    for (_, places), some in zip(groups, found, strict=True):
        for place, reply in zip(places, some, strict=True):
            replies[place] = reply
            if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                # Its slot is on the way to another node; redis-py follows it there. Scripts have to wait for
                # the end of it, for some of their keys are nowhere: one is enough to find that out.
                slot: int = reply.slot_id
                replies[place] = stuck[slot] if slot in stuck else _one(cluster, calls[place])
                if isinstance(replies[place], Exception):
                    stuck[slot] = replies[place]


def _one(cluster: Any, call: Call) -> Any:
    from redis.exceptions import ClusterDownError, RedisClusterException, RedisError

    try:
        return cluster.execute_command(*call.words)
    except RedisError as error:
        return error
    except RedisClusterException as error:
        return ClusterDownError(str(error))


def _may_be_repeated(reply: Any) -> bool:
    from redis import exceptions

    return isinstance(
        reply,
        (
            exceptions.MovedError,
            exceptions.ClusterDownError,
            exceptions.ConnectionError,
            exceptions.TimeoutError,
        ),
    ) and not isinstance(reply, (exceptions.MaxConnectionsError, exceptions.AuthenticationError))


def _learn(cluster: RedisCluster, errors: Mapping[int, Any], before: Mapping[int, str]) -> None:
    """Find out which node has what now."""
    from redis.exceptions import MovedError, RedisClusterException, RedisError

    if all(isinstance(error, MovedError) for error in errors.values()):
        for error in {error.slot_id: error for error in errors.values()}.values():
            cluster.nodes_manager.move_slot(error)
        return
    failed = next((before[place] for place in errors if place in before), None)
    try:
        cluster.nodes_manager.initialize(last_failed_node_name=failed)
    except (RedisError, RedisClusterException):
        return  # what is known stays


def _node(cluster: Any, key: str) -> ClusterNode | None:
    from redis.exceptions import SlotNotCoveredError

    try:
        node: ClusterNode = cluster.get_node_from_key(key)
    except SlotNotCoveredError:
        return None
    return node
