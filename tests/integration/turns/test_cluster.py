"""Mailboxes, leases and streams on a cluster of three nodes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from inturn.errors import ConfigurationError, MailboxError, MailboxUnavailableError
from inturn.settings import Settings, load_settings
from inturn.turns import Deliveries, Kicked, Lease, Mailbox, Streams, Write
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from producer.limits import RateLimits
from producer.problems import Refusal
from tests.servers_cluster import ValkeyCluster, valkey_cluster

BROKER = "redis://127.0.0.1:1/0"
SESSIONS = [f"s{number}" for number in range(30)]


@pytest.fixture
def make_settings(cluster: ValkeyCluster) -> Callable[..., Settings]:
    prefix = f"inturn-test-{secrets.token_hex(4)}"

    def make(servers: ValkeyCluster = cluster, **overrides: Any) -> Settings:
        return load_settings(
            redis_url=servers.url, redis_cluster=True, broker_url=BROKER, key_prefix=prefix, **overrides
        )

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with connect(settings) as client:
        yield client


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[ValkeyCluster]:
    """A cluster that a test may hurt."""
    with valkey_cluster(tmp_path) as servers:
        yield servers


def begin(mailbox: Mailbox, session_id: str) -> Lease:
    """Offer the turn `t` and take it."""
    mailbox.offer(session_id, "t", "text")
    lease = mailbox.begin(session_id, "t", f"token of {session_id}").lease
    assert lease is not None
    return lease


def make_overdue(cluster: ValkeyCluster, keys: Keys, session_id: str) -> None:
    """As if the session's owner had not been heard of for long."""
    active, _, _, state, *_ = keys.of_session(session_id)
    with Redis.from_url(cluster.node_of(active).url) as client:
        client.zadd(active, {session_id: 1}, xx=True)
        client.hset(state, "until", 1)


def test_what_concerns_sessions_of_all_nodes_is_one_call(
    redis: Redis, settings: Settings, cluster: ValkeyCluster
) -> None:
    mailbox, streams, deliveries = (
        Mailbox(redis, settings),
        Streams(redis, settings),
        Deliveries(redis, settings),
    )
    keys = Keys(settings.key_prefix)
    leases = [begin(mailbox, session) for session in SESSIONS]
    assert len({cluster.node_of(keys.of_session(session)[0]).port for session in SESSIONS}) == 3

    mailbox.renew_all(leases)
    assert not any(lease.lost for lease in leases)
    assert mailbox.waiting([*SESSIONS, "other"]) == set(SESSIONS)
    assert mailbox.owners() == {lease.session_id: lease.token for lease in leases}
    assert {item.session_id for item in mailbox.items() if item.running} == set(SESSIONS)
    assert {view.state for view in mailbox.look_all([(session, "t") for session in SESSIONS])} == {"running"}
    assert mailbox.head_payload("s1") == "text"
    assert mailbox.depth() == len(SESSIONS)

    streams.emit([Write(lease, "t", 1, f"text of {lease.session_id}") for lease in leases])
    read = streams.read_all([(session, "t", "0") for session in SESSIONS])
    assert [[entry.text for entry in entries] for entries in read] == [
        [f"text of {each}"] for each in SESSIONS
    ]
    assert streams.read("s1", "t") == read[1]
    assert streams.read("s1", "t", read[1][0].id, wait=0.05) == []

    for session in SESSIONS:
        make_overdue(cluster, keys, session)
    assert sorted(mailbox.sweep()) == sorted(Kicked(session, "t", True) for session in SESSIONS)
    mailbox.renew_all(leases)
    assert all(lease.lost for lease in leases)

    for session in SESSIONS:
        assert deliveries.offer(session, "t", "slack").publish
    assert [view.session_id for view in deliveries.overview("s3")] == ["s3"]
    assert len(list(deliveries.overview())) == len(SESSIONS)


def test_buckets_that_cannot_be_asked_together_are_asked_one_by_one(
    settings: Settings, cluster: ValkeyCluster
) -> None:
    # To a client that knows of no cluster one of its nodes is a server that refuses keys of several slots, as
    # a proxy in front of several servers is.
    keys = Keys(settings.key_prefix)
    node = cluster.node_of(keys.of_session("s")[0])
    alone = settings.model_copy(update={"redis_cluster": False, "redis_url": SecretStr(node.url)})
    with connect(alone) as client:
        mailbox = Mailbox(client, alone)
        begin(mailbox, "s")
        make_overdue(cluster, keys, "s")
        woken: list[Kicked] = []

        def sweep() -> None:
            for kicked in mailbox.sweep():
                woken.append(kicked)  # also what comes before the error

        with pytest.raises(MailboxError, match="refused"):  # by the other nodes' buckets
            sweep()

    assert woken == [Kicked("s", "t", True)]


def test_a_limit_in_all_counts_every_node(redis: Redis, make_settings: Callable[..., Settings]) -> None:
    mailbox = Mailbox(redis, make_settings(max_waiting_total=len(SESSIONS)))
    for session in SESSIONS:
        assert mailbox.offer(session, "t", "text").outcome == "new"
    mailbox.pressure.look()
    for session in SESSIONS:
        assert mailbox.offer(session, "u", "text").outcome == "shut"


def test_nodes_that_have_lost_their_scripts_are_given_them(
    redis: Redis, settings: Settings, cluster: ValkeyCluster
) -> None:
    mailbox = Mailbox(redis, settings)
    leases = [begin(mailbox, session) for session in SESSIONS]
    for node in cluster.nodes[:2]:
        with Redis.from_url(node.url) as client:
            client.script_flush()
    mailbox.renew_all(leases)
    assert not any(lease.lost for lease in leases)
    for node in cluster.nodes:
        with Redis.from_url(node.url) as client:
            client.script_flush()
    for lease in leases:
        assert mailbox.finish(lease, "t", go_on=True).outcome == "empty"


def test_a_node_that_is_away_stalls_its_own_sessions_only(
    own_cluster: ValkeyCluster, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(own_cluster, lease_seconds=600, grace_seconds=600)
    keys = Keys(settings.key_prefix)
    with connect(settings) as redis:
        mailbox = Mailbox(redis, settings)
        leases = [begin(mailbox, session) for session in SESSIONS]
        for session in SESSIONS[:15]:
            make_overdue(own_cluster, keys, session)
        gone = own_cluster.nodes[1]
        stalled = {
            session for session in SESSIONS if own_cluster.node_of(keys.of_session(session)[0]) is gone
        }
        swept = set(SESSIONS[:15])
        assert stalled & swept
        assert stalled - swept

        gone.kill()
        Mailbox(redis, make_settings(own_cluster, max_waiting_total=1000)).pressure.look()
        found: list[str] = []
        with pytest.raises(MailboxUnavailableError):
            found.extend(kicked.session_id for kicked in mailbox.sweep())
        assert sorted(found) == sorted(swept - stalled)
        held = [lease for lease in leases if lease.session_id not in swept]
        with pytest.raises(MailboxUnavailableError):
            mailbox.renew_all(held)
        for lease in held:
            assert not lease.lost
        with pytest.raises(MailboxUnavailableError):
            mailbox.offer(min(stalled), "u", "text")
        for session in sorted(set(SESSIONS) - stalled):
            assert mailbox.offer(session, "u", "text").outcome == "new"

        gone.start()
        own_cluster.wait()
        assert {kicked.session_id for kicked in mailbox.sweep()} == swept & stalled
        for session in sorted(stalled):
            assert mailbox.offer(session, "u", "text").outcome == "new"
            assert mailbox.queue(session) == ["t", "u"]


def test_sessions_whose_slot_moves_are_followed(
    own_cluster: ValkeyCluster, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(own_cluster)
    keys = Keys(settings.key_prefix)
    with connect(settings) as redis:
        mailbox = Mailbox(redis, settings)
        leases = [begin(mailbox, session) for session in SESSIONS]
        index = keys.of_session("s0")[0]
        source = own_cluster.node_of(index)
        target = next(node for node in own_cluster.nodes if node is not source)
        with Redis.from_url(source.url) as old, Redis.from_url(target.url) as new:
            slot, old_id, new_id = _call(old, "KEYSLOT", index), _call(old, "MYID"), _call(new, "MYID")
            _call(new, "SETSLOT", slot, "IMPORTING", old_id)
            _call(old, "SETSLOT", slot, "MIGRATING", new_id)
            for name in _call(old, "GETKEYSINSLOT", slot, 1000):
                old.migrate("127.0.0.1", target.port, name, 0, 5000)
            # All of it is there, but the slot is not yet. The old node answers ASK, and the new one runs no
            # script, for of the script's keys some are nowhere: a clear error, and nothing is half done.
            with pytest.raises(MailboxUnavailableError):
                mailbox.renew_all(leases)
            with pytest.raises(MailboxUnavailableError):
                mailbox.offer("s0", "u", "text")
            for client in (new, old):
                _call(client, "SETSLOT", slot, "NODE", new_id)
        # Now it answers MOVED.
        mailbox.renew_all(leases)
        assert not any(lease.lost for lease in leases)
        assert mailbox.offer("s0", "u", "text").ahead == 1
        assert mailbox.queue("s0") == ["t", "u"]
        assert mailbox.finish(leases[0], "t", go_on=True).outcome == "next"


def test_the_web_api_counts_requests_on_the_cluster(
    redis: Redis, make_settings: Callable[..., Settings]
) -> None:
    limits = RateLimits(redis, make_settings(rate_limit="2/minute"))
    limits.spend("ada")
    limits.spend("ada")
    with pytest.raises(Refusal, match="more than 2"):
        limits.spend("ada")
    limits.spend("grace")


def test_a_cluster_needs_a_broker_of_its_own(cluster: ValkeyCluster, redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match="INTURN_BROKER_URL"):
        load_settings(redis_url=cluster.url, redis_cluster=True)
    with pytest.raises(ConfigurationError, match="INTURN_RESULT_BACKEND"):
        load_settings(redis_url=cluster.url, redis_cluster=True, broker_url="amqp://127.0.0.1//")
    settings = load_settings(redis_url=cluster.url, redis_cluster=True, broker_url=BROKER)
    assert (settings.broker, settings.results) == (BROKER, BROKER)
    with pytest.raises(ConfigurationError, match="INTURN_REDIS_CLUSTER"):
        connect(load_settings(redis_url=redis_url, redis_cluster=True, broker_url=BROKER))
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        connect(load_settings(redis_url=f"{cluster.url[:-1]}3", redis_cluster=True, broker_url=BROKER))
    with pytest.raises(MailboxUnavailableError, match="no node"):
        connect(load_settings(redis_url=BROKER, redis_cluster=True, broker_url=BROKER))


def _call(client: Any, *words: Any) -> Any:
    return client.execute_command("CLUSTER", *words)
