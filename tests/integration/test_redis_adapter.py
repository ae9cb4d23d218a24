"""RedisAdapter: the faults of the system it replaces, what a call costs, and how sessions expire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from inturn.embedded.valkey import EmbeddedValkey
from inturn.errors import InvalidInputError, SessionConflictError
from inturn.persistence import (
    MessageQuery,
    PersistenceAdapter,
    PersistenceManager,
    RedisAdapter,
    SessionQuery,
    Target,
)
from inturn.session import Message, SessionState, TurnRecord, create_session
from inturn.testing.conformance.races import at_once
from tests.keys import keys_of
from tests.waiting import wait_until

DAY = 86_400.0


@pytest.fixture
def adapter(redis_url: str, key_prefix: str) -> Iterator[RedisAdapter]:
    """An adapter whose sessions live for a day: a key without a time to live fails the test."""
    with RedisAdapter(redis_url, key_prefix=key_prefix, session_ttl=DAY) as adapter:
        yield adapter


@pytest.fixture
def opened(redis_url: str, key_prefix: str) -> Iterator[Callable[..., RedisAdapter]]:
    """Makes more adapters on the same keys."""
    made: list[RedisAdapter] = []

    def make(**options: Any) -> RedisAdapter:
        made.append(RedisAdapter(redis_url, key_prefix=key_prefix, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def message(session: SessionState, content: str = "hello", **fields: Any) -> Message:
    return Message(session_id=session.id, role="user", content=content, user_id=session.user_id, **fields)


def saved(adapter: RedisAdapter, count: int = 1, **fields: Any) -> SessionState:
    session = create_session(**fields)
    return adapter.commit(session, [message(session) for _ in range(count)], expected_version=0).session


def sessions_of(adapter: RedisAdapter, **query: Any) -> list[str]:
    return [session.id for session in adapter.find_sessions(SessionQuery(**query)).items]


def messages_of(adapter: RedisAdapter, **query: Any) -> list[str]:
    return [item.content for item in adapter.find_messages(MessageQuery(**query)).items]


class TestFaultsOfTheOriginal:
    def test_two_writers_never_both_win(self, adapter: RedisAdapter) -> None:
        """Lost update: the original read with GET and wrote with SETEX, and told both writers OK."""
        session = saved(adapter)

        def write(adapter: PersistenceAdapter, number: int) -> bool:
            mine = session.model_copy(update={"data": {"writer": number}})
            try:
                adapter.commit(mine, expected_version=session.version)
            except SessionConflictError:
                return False
            return True

        for _ in range(50):
            outcomes = at_once([adapter], write, 2)
            assert sorted(outcomes) == [False, True]
            found = adapter.load(session.id)
            assert found is not None
            assert found.session.data == {"writer": outcomes.index(True)}
            session = found.session

    def test_a_limit_counts_what_matches_in_order(self, adapter: RedisAdapter) -> None:
        """Limits: the original cut its list before sorting it, and before leaving out what did not match."""
        wanted = [saved(adapter, user_id="ann", agent_name="a", status="completed").id for _ in range(3)]
        for _ in range(5):
            saved(adapter, user_id="ann", agent_name="a")
            saved(adapter, user_id="bob", agent_name="a", status="completed")
        query = {"user_id": "ann", "status": "completed", "agent_name": "a"}
        assert sessions_of(adapter, limit=2, **query) == wanted[:0:-1]
        assert sessions_of(adapter, limit=2, order="oldest", **query) == wanted[:2]

    def test_the_active_session_of_a_user_is_the_newest(self, adapter: RedisAdapter) -> None:
        """Active session: the original returned the oldest."""
        made = [saved(adapter, user_id="ann") for _ in range(3)]
        saved(adapter, user_id="ann", status="completed")
        found = PersistenceManager(adapter).find_active_session_by_user_id("ann")
        assert found is not None
        assert found.id == made[-1].id

    def test_messages_are_listed_whatever_their_times(self, adapter: RedisAdapter) -> None:
        """Listing: in the original two messages or more threw, for their dates came back as texts."""
        session = create_session(user_id="ann")
        noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
        times = {
            "second": noon.astimezone(timezone(timedelta(hours=-8))),
            "first": (noon - timedelta(seconds=1)).astimezone(timezone(timedelta(hours=9))),
            "third": noon + timedelta(microseconds=1),
        }
        some = [message(session, text, created_at=time) for text, time in times.items()]
        adapter.commit(session, some, expected_version=0)
        assert messages_of(adapter, user_id="ann") == ["first", "second", "third"]
        assert messages_of(adapter, user_id="ann", order="newest") == ["third", "second", "first"]
        assert messages_of(adapter, session_id=session.id) == ["second", "first", "third"]

    def test_a_deletion_leaves_nothing(
        self, adapter: RedisAdapter, redis_client: Redis, key_prefix: str
    ) -> None:
        """Deletion: the original left the session in its user's index."""
        made = [saved(adapter, 3, user_id="ann", agent_name="a") for _ in range(3)]
        adapter.delete_sessions([Target(session.id) for session in made])
        assert keys_of(redis_client, key_prefix) == []

    def test_everything_expires(self, opened: Any, redis_client: Redis, key_prefix: str) -> None:
        """Expiry: the original's hashes and indexes never expired."""
        adapter = opened(session_ttl=0.2)
        session = saved(adapter, 3, user_id="ann", agent_name="a")
        turn = TurnRecord(session_id=session.id, turn_id="t")
        adapter.commit(session, [message(session)], expected_version=1, turn=turn)
        assert len(keys_of(redis_client, key_prefix)) == 12
        wait_until(lambda: keys_of(redis_client, key_prefix) == [], what="all keys to expire")
        assert adapter.load(session.id, turn_id="t") is None

    def test_a_great_deletion_is_done_in_pieces(
        self, adapter: RedisAdapter, redis_client: Redis, key_prefix: str
    ) -> None:
        made = [saved(adapter, 1500, user_id="ann") for _ in range(4)]
        targets = [Target(each.id, each.version) for each in made]
        assert adapter.delete_sessions([*targets, Target("nobody")]) == [each.id for each in made]
        assert keys_of(redis_client, key_prefix) == []


class TestCost:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
        """A server of this class's own: it counts what it is asked."""
        directory: Path = tmp_path_factory.mktemp("valkey")
        with EmbeddedValkey(directory, appendonly=False) as server:
            yield server

    @pytest.fixture
    def adapter(self, server: EmbeddedValkey) -> Iterator[RedisAdapter]:
        with RedisAdapter(server.url, session_ttl=DAY, pool_size=1) as adapter:
            # A server learns a script by its first call.
            for _ in range(5):
                session = saved(adapter, user_id="ann", agent_name="a")
                adapter.load(session.id)
                sessions_of(adapter)
                messages_of(adapter, session_id=session.id)
            adapter.delete_sessions([Target("nobody")])
            yield adapter

    @pytest.fixture
    def cost(self, server: EmbeddedValkey) -> Iterator[Callable[[Callable[[], object]], dict[str, int]]]:
        """Counts what a call makes the server do: its commands, `trips` among them, and bytes."""
        with Redis.from_url(server.url) as client:

            def measure(call: Callable[[], object]) -> dict[str, int]:
                client.config_resetstat()
                call()
                stats: dict[str, Any] = client.info("commandstats")
                calls = {
                    name.removeprefix("cmdstat_"): each["calls"]
                    for name, each in stats.items()
                    if not name.startswith(("cmdstat_config", "cmdstat_info"))
                }
                traffic: dict[str, Any] = client.info("stats")
                sent = traffic["total_net_input_bytes"] + traffic["total_net_output_bytes"]
                return {"trips": calls.get("evalsha", 0) + calls.get("eval", 0), **calls, "bytes": sent}

            yield measure

    def test_a_turn_costs_the_same_however_long_its_session_is(
        self, adapter: RedisAdapter, cost: Any
    ) -> None:
        """Rewritten history: one load, one commit, one round trip each, and nothing that grows."""
        costs = []
        for length in (10, 10_000):
            session = saved(adapter, length, user_id="ann", agent_name="a")

            def turn(session: SessionState = session) -> None:
                found = adapter.load(session.id, last_messages=10, turn_id="t")
                assert found is not None
                assert [item.sequence for item in found.messages][-1] == session.message_count
                some = [message(session), message(session)]
                record = TurnRecord(session_id=session.id, turn_id="t")
                adapter.commit(found.session, some, expected_version=1, turn=record)

            costs.append(cost(turn))
        short, long = costs
        assert short["trips"] == long["trips"] == 2
        assert abs(long.pop("bytes") - short.pop("bytes")) < 1000
        assert long == short

    @pytest.mark.parametrize("count", [2, 200])
    def test_a_listing_is_one_round_trip(self, adapter: RedisAdapter, cost: Any, count: int) -> None:
        """N+1: the original asked for each session and each message of a listing by itself."""
        user = f"user-{count}"
        made = [saved(adapter, user_id=user).id for _ in range(count)]
        session = saved(adapter, count, user_id=f"{user}-2")
        for call in (
            lambda: sessions_of(adapter, user_id=user, limit=1000),
            lambda: messages_of(adapter, user_id=user, limit=1000),
            lambda: messages_of(adapter, session_id=session.id, limit=1000),
            lambda: adapter.delete_sessions([Target(session_id) for session_id in made[:100]]),
        ):
            assert cost(call)["trips"] == 1

    def test_what_is_listed_is_what_is_read(self, adapter: RedisAdapter, cost: Any) -> None:
        """Filters: of many sessions and messages a page touches its own, and the one after."""
        for number in range(300):
            saved(adapter, user_id="zoe", status="abandoned" if number % 100 == 0 else "active")
        found = cost(lambda: sessions_of(adapter, user_id="zoe", status="abandoned", limit=2))
        assert (found["zrange"], found["hmget"]) == (1, 3)
        found = cost(lambda: messages_of(adapter, user_id="zoe", limit=2))
        assert (found["zrange"], found["hget"]) == (1, 3)

    def test_no_call_walks_over_all_keys(self, adapter: RedisAdapter, cost: Any) -> None:
        """KEYS: the original looked through all messages of all sessions."""

        def everything() -> None:
            session = saved(adapter, 3, user_id="ann")
            adapter.initialize()
            adapter.ping()
            adapter.load(session.id, last_messages=10)
            sessions_of(adapter)
            messages_of(adapter, user_id="ann")
            messages_of(adapter, session_id=session.id)
            adapter.delete_sessions([Target(session.id)])

        walks = {"keys", "scan", "hscan", "zscan", "sscan", "hgetall", "hkeys", "hvals", "smembers", "sort"}
        assert cost(everything).keys() & walks == set()


class TestExpiry:
    """What expires by itself is taken away here as Redis does it: the key is gone."""

    def test_nothing_expires_unless_it_is_told_to(
        self, redis_client: Redis, key_prefix: str, opened: Any
    ) -> None:
        adapter = opened()
        session = saved(adapter, user_id="ann")
        adapter.load(session.id)
        assert {redis_client.ttl(key) for key in keys_of(redis_client, key_prefix)} == {-1}
        adapter.delete_sessions([Target(session.id)])

    @pytest.mark.parametrize("use", ["load", "commit"])
    def test_use_renews_everything_a_session_is_found_by(
        self, adapter: RedisAdapter, redis_client: Redis, key_prefix: str, use: str
    ) -> None:
        """Renewal: the original renewed with each write of a key, and never on a read."""
        session = create_session(user_id="ann", agent_name="a")
        others = message(session).model_copy(update={"user_id": "bob"})
        session = adapter.commit(session, [message(session), others], expected_version=0).session
        keys = keys_of(redis_client, key_prefix)
        assert len(keys) == 13
        for key in keys:
            redis_client.expire(key, 60)
        if use == "load":
            adapter.load(session.id)
        else:
            adapter.commit(session, expected_version=1)
        assert [key for key in keys if redis_client.ttl(key) < DAY - 60] == []

    def test_listings_do_not_renew(self, adapter: RedisAdapter, redis_client: Redis, key_prefix: str) -> None:
        session = saved(adapter, user_id="ann")
        for key in keys_of(redis_client, key_prefix):
            redis_client.expire(key, 60)
        sessions_of(adapter, user_id="ann")
        messages_of(adapter, user_id="ann")
        messages_of(adapter, session_id=session.id)
        assert [key for key in keys_of(redis_client, key_prefix) if redis_client.ttl(key) > 60] == []

    def test_a_session_that_is_used_with_no_time_to_live_stays_for_ever(
        self, adapter: RedisAdapter, opened: Any, redis_client: Redis, key_prefix: str
    ) -> None:
        session = saved(adapter, user_id="ann")
        lasting = opened()
        lasting.load(session.id)
        assert {redis_client.ttl(key) for key in keys_of(redis_client, key_prefix)} == {-1}
        # An index that names it stays too, whoever else is named there and expires.
        other = saved(adapter, user_id="ann")
        index = f"{key_prefix}sessions:user=ann"
        assert (redis_client.ttl(index), redis_client.zcard(index)) == (-1, 2)
        adapter.delete_sessions([Target(session.id), Target(other.id)])

    def test_an_expired_session_is_listed_nowhere(
        self, adapter: RedisAdapter, redis_client: Redis, key_prefix: str
    ) -> None:
        kept = saved(adapter, user_id="ann", agent_name="a")
        gone = saved(adapter, user_id="ann", agent_name="a")
        for kind in ("session", "messages"):
            redis_client.delete(f"{key_prefix}{kind}:{gone.id}")
        indexes = redis_client.keys(f"{key_prefix}*sessions*")
        assert len(indexes) == 8
        for query in ({}, {"user_id": "ann"}, {"agent_name": "a", "status": "active"}):
            assert sessions_of(adapter, **query) == [kept.id]
        assert messages_of(adapter, user_id="ann") == ["hello"]
        # What was found to lead nowhere is no longer there.
        for index in ("sessions", "sessions:user=ann", "sessions:agent=a:status=active", "user-messages:ann"):
            assert redis_client.zcard(f"{key_prefix}{index}") == 1

    def test_expired_sessions_by_the_thousand_do_not_hide_one_that_lives(
        self, adapter: RedisAdapter, redis_client: Redis, key_prefix: str
    ) -> None:
        first = saved(adapter, user_id="ann")
        redis_client.zadd(
            f"{key_prefix}sessions:user=ann", {f"2001-01-01T00:00:00.000000gone-{n}": 0 for n in range(2500)}
        )
        last = saved(adapter, user_id="ann")
        assert sessions_of(adapter, user_id="ann", order="oldest") == [first.id, last.id]
        assert redis_client.zcard(f"{key_prefix}sessions:user=ann") == 2

    def test_indexes_shrink_while_they_are_written_to(
        self, adapter: RedisAdapter, redis_client: Redis, key_prefix: str
    ) -> None:
        """Leak: names of expired sessions leave indexes that are in use, though nobody lists them."""
        for session in [saved(adapter, user_id="ann", agent_name="a") for _ in range(150)]:
            for kind in ("session", "messages"):
                redis_client.delete(f"{key_prefix}{kind}:{session.id}")

        def left() -> int:
            with redis_client.pipeline() as pipe:
                for key in keys_of(redis_client, key_prefix):
                    if "sessions" in key or "user-messages" in key:
                        pipe.zcard(key)
                pipe.hlen(f"{key_prefix}message-ids")
                sizes: list[int] = pipe.execute()
            return max(sizes)

        assert left() > 100
        session = saved(adapter, user_id="ann", agent_name="a")
        for _ in range(400):
            session = adapter.commit(session, [message(session)], expected_version=session.version).session
            adapter.delete_sessions([Target(session.id)])
            session = saved(adapter, user_id="ann", agent_name="a")
        assert left() < 50

    @pytest.mark.parametrize("time", [None, datetime(2200, 1, 1, tzinfo=UTC)], ids=["later", "same time"])
    def test_a_session_that_begins_anew_has_nothing_of_the_expired_one(
        self, adapter: RedisAdapter, redis_client: Redis, key_prefix: str, time: datetime | None
    ) -> None:
        fields: dict[str, Any] = {} if time is None else {"updated_at": time}
        old = saved(adapter, 3, user_id="ann", **fields)
        for kind in ("session", "messages"):
            redis_client.delete(f"{key_prefix}{kind}:{old.id}")
        new = create_session(old.id, user_id="bob", **fields)
        adapter.commit(new, [message(new, "new")], expected_version=0)
        assert sessions_of(adapter, user_id="ann") == []
        assert messages_of(adapter, user_id="ann") == []
        assert sessions_of(adapter, user_id="bob") == sessions_of(adapter) == [old.id]
        assert messages_of(adapter, session_id=old.id) == ["new"]

    def test_a_late_commit_to_an_expired_session_is_a_conflict(
        self, adapter: RedisAdapter, redis_client: Redis, key_prefix: str
    ) -> None:
        session = saved(adapter)
        redis_client.delete(f"{key_prefix}session:{session.id}")
        with pytest.raises(SessionConflictError) as conflict:
            adapter.commit(session, [message(session)], expected_version=1)
        assert conflict.value.actual_version is None

    def test_a_message_id_is_free_once_its_message_has_expired(
        self, adapter: RedisAdapter, redis_client: Redis, key_prefix: str
    ) -> None:
        session, other = create_session(), saved(adapter)
        taken = message(session)
        adapter.commit(session, [taken], expected_version=0)
        again = taken.model_copy(update={"session_id": other.id})
        with pytest.raises(InvalidInputError):
            adapter.commit(other, [again], expected_version=1)
        redis_client.delete(f"{key_prefix}messages:{session.id}")
        adapter.commit(other, [again], expected_version=1)


class TestMessagesThatExpireByThemselves:
    def test_a_session_may_outlive_its_messages(
        self, opened: Any, redis_client: Redis, key_prefix: str
    ) -> None:
        adapter = opened(session_ttl=DAY, message_ttl=60)
        session = saved(adapter, 3, user_id="ann", data={"city": "Lagos"})
        assert 50 < redis_client.ttl(f"{key_prefix}messages:{session.id}") <= 60
        redis_client.delete(f"{key_prefix}messages:{session.id}")
        found = adapter.load(session.id, last_messages=10)
        assert found is not None
        assert (found.session, found.messages) == (session, [])
        assert messages_of(adapter, user_id="ann") == messages_of(adapter, session_id=session.id) == []
        some = [message(session, "more"), message(session, "and more")]
        committed = adapter.commit(session, some, expected_version=1)
        assert [item.sequence for item in committed.messages] == [4, 5]
        for last_messages, expected in ((1, [5]), (2, [4, 5]), (10, [4, 5])):
            found = adapter.load(session.id, last_messages=last_messages)
            assert found is not None
            assert [item.sequence for item in found.messages] == expected
        assert messages_of(adapter, session_id=session.id, limit=1) == ["more"]
        assert messages_of(adapter, session_id=session.id, after=4) == ["and more"]

    def test_messages_may_outlive_their_session(
        self, opened: Any, redis_client: Redis, key_prefix: str
    ) -> None:
        """Nothing that was to be kept for longer is lost when a session of the same ID begins anew."""
        adapter = opened(session_ttl=60, message_ttl=DAY)
        old = create_session(user_id="ann")
        adapter.commit(old, [message(old, "1"), message(old, "2")], expected_version=0)
        redis_client.delete(f"{key_prefix}session:{old.id}")
        assert adapter.load(old.id) is None
        assert sessions_of(adapter, user_id="ann") == []
        assert messages_of(adapter, session_id=old.id) == messages_of(adapter, user_id="ann") == ["1", "2"]

        new = adapter.commit(create_session(old.id, user_id="ann"), expected_version=0).session
        found = adapter.load(new.id, last_messages=10)
        assert found is not None
        assert found.messages == []
        assert messages_of(adapter, session_id=new.id) == []
        committed = adapter.commit(new, [message(new, "3"), message(new, "4")], expected_version=1)
        assert [item.sequence for item in committed.messages] == [1, 2]
        found = adapter.load(new.id, last_messages=10)
        assert found is not None
        assert [item.content for item in found.messages] == ["3", "4"]
        assert messages_of(adapter, session_id=new.id, before=2) == ["3"]
        assert messages_of(adapter, session_id=new.id, order="newest", limit=3) == ["4", "3"]
        assert messages_of(adapter, user_id="ann") == ["1", "2", "3", "4"]

        assert adapter.delete_sessions([Target(new.id)]) == [new.id]
        assert keys_of(redis_client, key_prefix) == []

    def test_messages_without_a_session_can_be_deleted(
        self, opened: Any, redis_client: Redis, key_prefix: str
    ) -> None:
        adapter = opened(session_ttl=60, message_ttl=DAY)
        session = saved(adapter, 3, user_id="ann")
        redis_client.delete(f"{key_prefix}session:{session.id}")
        assert adapter.delete_sessions([Target(session.id, 1)]) == []
        assert len(messages_of(adapter, user_id="ann")) == 3
        assert adapter.delete_sessions([Target(session.id)]) == []
        assert messages_of(adapter, user_id="ann") == []
        assert keys_of(redis_client, f"{key_prefix}messages") == []
