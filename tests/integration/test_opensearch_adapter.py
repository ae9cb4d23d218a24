"""OpenSearchAdapter: killed and delayed writers, lost answers, deletions, searches, and what it all costs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opensearchpy import OpenSearch, exceptions

from inturn.errors import (
    ConfigurationError,
    InvalidInputError,
    SessionConflictError,
    SessionNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from inturn.persistence import (
    Committed,
    MessageQuery,
    OpenSearchAdapter,
    SessionQuery,
    SessionRepository,
    Target,
    open_adapter,
)
from inturn.persistence.opensearch import burying
from inturn.persistence.opensearch.client import translated
from inturn.session import Message, SessionState, TurnRecord, create_session
from inturn.session.state import RouteRef, StepRef
from tests.conformance.scripts import next_line, run_script, started_script
from tests.proxy_opensearch import Exchange, Gate, Proxy
from tests.servers_opensearch import opensearch, own_opensearch


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with opensearch() as url:
        yield url


@pytest.fixture
def name() -> str:
    """The name of this test's index of sessions, which those of the others are made from."""
    return f"inturn-test-{secrets.token_hex(4)}"


@pytest.fixture
def client(server: str) -> Iterator[OpenSearch]:
    with closing(OpenSearch(server.replace("opensearch", "http", 1))) as client:
        yield client


@pytest.fixture
def adapter(server: str, name: str) -> Iterator[OpenSearchAdapter]:
    with OpenSearchAdapter(server, indices={"sessions": name}) as adapter:
        yield adapter


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    if server.startswith("opensearchs"):
        pytest.skip("looks into requests, which TLS does not allow")
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture
def other(adapter: OpenSearchAdapter, proxy: Proxy, name: str) -> Iterator[OpenSearchAdapter]:
    """An adapter on the same indices whose requests go through `proxy`."""
    with closing(OpenSearchAdapter(proxy.url, indices={"sessions": name})) as other:
        yield other


def said(session: SessionState, content: str = "hello", **fields: Any) -> Message:
    return Message(session_id=session.id, role="user", content=content, **fields)


def record(session: SessionState, turn_id: str = "t", **result: Any) -> TurnRecord:
    return TurnRecord(session_id=session.id, turn_id=turn_id, result=result)


def saved(adapter: OpenSearchAdapter, *contents: str, **fields: Any) -> SessionState:
    session = create_session(**fields)
    messages = [said(session, content, user_id=session.user_id) for content in contents]
    return adapter.commit(session, messages, expected_version=0).session


def contents(adapter: OpenSearchAdapter, session: SessionState) -> list[str]:
    """What the session's messages say, which a load and the pages tell alike."""
    found = adapter.load(session.id, last_messages=1000)
    listed = adapter.find_messages(MessageQuery(session_id=session.id)).items
    assert (found.messages if found else []) == listed
    return [message.content for message in listed]


def count(client: OpenSearch, name: str, index: str) -> int:
    """How many documents an index has."""
    full = name if index == "sessions" else f"{name}_{index}"
    client.indices.refresh(index=full)
    return int(client.count(index=full)["count"])


WRITER = """
    import sys
    from inturn.persistence import OpenSearchAdapter
    from inturn.session import Message, TurnRecord, create_session

    url, name, session_id = sys.argv[1:]
    adapter = OpenSearchAdapter(url, indices={"sessions": name})
    found = adapter.load(session_id)
    session = found.session if found else create_session(session_id)
    session.data["killed"] = True
    content = "left behind"
    messages = [
        Message(id=f"{session_id}-{n}", session_id=session_id, user_id="u", role="user", content=content)
        for n in range(2)
    ]
    turn = TurnRecord(session_id=session_id, turn_id="killed", result={"by": "the killed"})
    adapter.commit(session, messages, expected_version=session.version, turn=turn)
"""


@contextmanager
def in_background(work: Callable[[], Committed]) -> Iterator[Future[Committed]]:
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(work)


class TestKilledWriters:
    """A process is killed between two of the requests of its commit."""

    def kill(self, proxy: Proxy, gate: Gate, name: str, session_id: str) -> None:
        with started_script(WRITER, proxy.url, name, session_id) as process:
            gate.wait()
            process.kill()
            process.wait()
        gate.open(passing=False)

    @pytest.mark.parametrize("exists", [True, False])
    def test_nothing_of_a_commit_is_seen_that_was_killed_before_the_swap(
        self, adapter: OpenSearchAdapter, proxy: Proxy, client: OpenSearch, name: str, exists: bool
    ) -> None:
        session = saved(adapter, "before", user_id="u") if exists else create_session(user_id="u")
        before = adapter.load(session.id, last_messages=9)
        self.kill(proxy, proxy.stop_at("swap"), name, session.id)
        assert count(client, name, "messages") == 2 + exists
        assert adapter.load(session.id, last_messages=9, turn_id="killed") == before
        assert contents(adapter, session) == ["before"] * exists
        assert len(adapter.find_sessions(SessionQuery()).items) == exists
        assert len(adapter.find_messages(MessageQuery(user_id="u")).items) == exists
        assert adapter.search_messages("left behind").items == []
        assert adapter.session_stats().messages == exists

    @pytest.mark.parametrize("exists", [True, False])
    @pytest.mark.parametrize("step", ["reserve", "swap"])
    def test_the_next_writer_takes_the_places_of_a_killed_one(
        self, adapter: OpenSearchAdapter, proxy: Proxy, name: str, step: str, exists: bool
    ) -> None:
        session = saved(adapter, "before") if exists else create_session()
        self.kill(proxy, proxy.stop_at(step), name, session.id)
        turn = record(session, "next")
        done = adapter.commit(session, [said(session, "next")], expected_version=session.version, turn=turn)
        assert (done.repeated, done.session.version) == (False, session.version + 1)
        # The killed one had reserved a second place.
        last = adapter.commit(done.session, [said(session, "last")], expected_version=done.session.version)
        assert contents(adapter, session) == ["before"] * exists + ["next", "last"]
        assert last.session.data == {}
        found = adapter.load(session.id, turn_id="killed")
        assert found is not None
        assert found.turn is None

    def test_the_killed_turn_is_repeated_with_the_same_messages(
        self, adapter: OpenSearchAdapter, proxy: Proxy, name: str
    ) -> None:
        session = saved(adapter)
        self.kill(proxy, proxy.stop_at("swap"), name, session.id)
        again = [said(session, "again", id=f"{session.id}-{n}") for n in range(2)]
        done = adapter.commit(session, again, expected_version=1, turn=record(session, "killed"))
        assert not done.repeated
        assert contents(adapter, session) == ["again", "again"]

    def test_a_message_id_of_a_killed_commit_is_free_for_another_session(
        self, adapter: OpenSearchAdapter, proxy: Proxy, name: str
    ) -> None:
        session, elsewhere = saved(adapter), saved(adapter)
        self.kill(proxy, proxy.stop_at("swap"), name, session.id)
        message = said(elsewhere, "elsewhere", id=f"{session.id}-0")
        adapter.commit(elsewhere, [message], expected_version=1)
        assert contents(adapter, elsewhere) == ["elsewhere"]
        with pytest.raises(InvalidInputError):
            adapter.commit(session, [said(session, id=message.id)], expected_version=1)
        assert contents(adapter, session) == []

    def test_a_commit_that_was_killed_after_the_swap_has_happened(
        self, adapter: OpenSearchAdapter, proxy: Proxy, name: str
    ) -> None:
        session = saved(adapter)
        self.kill(proxy, proxy.stop_at("swap", before="answer"), name, session.id)
        assert contents(adapter, session) == ["left behind"] * 2
        assert len(adapter.search_messages("left behind").items) == 2
        again = adapter.commit(session, [said(session)], expected_version=1, turn=record(session, "killed"))
        assert again.repeated
        assert again.turn is not None
        assert again.turn.result == {"by": "the killed"}
        found = adapter.load(session.id)
        assert found is not None
        adapter.commit(found.session, [said(session)], expected_version=2, turn=record(session, "next"))
        found = adapter.load(session.id, turn_id="killed")
        assert found is not None
        assert found.turn == again.turn


class TestDelayedWriters:
    """A writer is held up, and goes on when others have committed."""

    @pytest.mark.parametrize("step", ["reserve", "swap"])
    @pytest.mark.parametrize("exists", [True, False])
    @pytest.mark.parametrize("more", [0, 3])
    def test_a_late_one_meets_the_conflict_and_changes_nothing(
        self,
        adapter: OpenSearchAdapter,
        other: OpenSearchAdapter,
        proxy: Proxy,
        client: OpenSearch,
        name: str,
        step: str,
        exists: bool,
        more: int,
    ) -> None:
        """The row of the winner stays, even if the loser writes after the winner has committed."""
        session = saved(adapter, "before") if exists else create_session()
        version = session.version
        gate = proxy.stop_at(step)
        late = [said(session, "late") for _ in range(4)]
        with in_background(
            lambda: other.commit(session, late, expected_version=version, turn=record(session, "late"))
        ) as outcome:
            gate.wait()
            state = session
            for number in range(1 + more):
                state = adapter.commit(
                    state, [said(session, f"in time {number}")], expected_version=state.version
                ).session
            gate.open()
            with pytest.raises(SessionConflictError) as conflict:
                outcome.result(60)
        assert conflict.value.actual_version == version + 1 + more
        expected = ["before"] * exists + [f"in time {number}" for number in range(1 + more)]
        assert contents(adapter, session) == expected
        # Nothing is left of the late one, neither messages nor their IDs.
        assert count(client, name, "messages") == len(expected)
        adapter.commit(state, late, expected_version=state.version)

    @pytest.mark.parametrize("first", ["late", "hasty"])
    @pytest.mark.parametrize("fenced", [False, True])
    def test_two_that_take_each_others_places_do_not_both_commit(
        self, other: OpenSearchAdapter, proxy: Proxy, first: str, fenced: bool
    ) -> None:
        """Whoever replaces what another has reserved makes sure that the other cannot commit it."""
        session = saved(other)

        def commit(content: str) -> Callable[[], Committed | SessionConflictError]:
            def work() -> Committed | SessionConflictError:
                try:
                    return other.commit(session, [said(session, content)], expected_version=1)
                except SessionConflictError as conflict:
                    return conflict

            return work

        late_gate = proxy.stop_at("swap")
        with ThreadPoolExecutor(2) as threads:
            late = threads.submit(commit("late"))
            late_gate.wait()
            # The first swap of this one is its fence.
            hasty_gate = proxy.stop_at("swap", skip=1 if fenced else 0)
            hasty = threads.submit(commit("hasty"))
            hasty_gate.wait()
            gates = {"late": (late_gate, late), "hasty": (hasty_gate, hasty)}
            gate, outcome = gates.pop(first)
            gate.open()
            outcome.result(60)
            ((gate, outcome),) = gates.values()
            gate.open()
            outcome.result(60)
        outcomes = [future.result() for future in (late, hasty)]
        winners = [each for each in outcomes if isinstance(each, Committed)]
        assert len(winners) == 1
        found = other.load(session.id, last_messages=9)
        assert found is not None
        assert (found.session, found.messages) == winners[0][:2]

    def test_a_load_that_is_overtaken_by_commits_is_one_state(
        self, adapter: OpenSearchAdapter, other: OpenSearchAdapter, proxy: Proxy
    ) -> None:
        session = saved(adapter, "1")
        gate = proxy.stop_at("look", before="answer")
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(other.load, session.id, last_messages=9, turn_id="2")
            gate.wait()
            state = session
            for number in range(2, 4):
                state = adapter.commit(
                    state,
                    [said(session, f"{number}")],
                    expected_version=state.version,
                    turn=record(session, f"{number}"),
                ).session
            gate.open()
            loaded = found.result(60)
        assert loaded is not None
        assert (loaded.session, loaded.turn) == (session, None)
        assert [message.content for message in loaded.messages] == ["1"]

    def test_a_late_one_with_the_same_turn_is_answered_from_the_store(
        self, adapter: OpenSearchAdapter, other: OpenSearchAdapter, proxy: Proxy
    ) -> None:
        session = saved(adapter)
        gate = proxy.stop_at("swap")
        with in_background(
            lambda: other.commit(
                session, [said(session)], expected_version=1, turn=record(session, by="late")
            )
        ) as outcome:
            gate.wait()
            first = record(session, by="the first")
            state = adapter.commit(session, [said(session, "1")], expected_version=1, turn=first).session
            adapter.commit(state, [said(session, "2")], expected_version=2, turn=record(session, "next"))
            gate.open()
            done = outcome.result(60)
        assert (done.repeated, done.turn, done.messages) == (True, first, [])
        assert contents(adapter, session) == ["1", "2"]

    def test_a_late_one_brings_no_deleted_session_back(
        self,
        adapter: OpenSearchAdapter,
        other: OpenSearchAdapter,
        proxy: Proxy,
        client: OpenSearch,
        name: str,
    ) -> None:
        session = saved(adapter, "before")
        gate = proxy.stop_at("reserve")
        with in_background(lambda: other.commit(session, [said(session)], expected_version=1)) as outcome:
            gate.wait()
            adapter.delete_sessions([Target(session.id)])
            anew = adapter.commit(create_session(session.id), [said(session, "anew")], expected_version=0)
            adapter.commit(anew.session, expected_version=1)
            gate.open()
            with pytest.raises(SessionConflictError):
                outcome.result(60)
        assert contents(adapter, session) == ["anew"]
        assert count(client, name, "messages") == 1

    def test_a_load_that_is_overtaken_by_a_deletion_sees_no_half_session(
        self, adapter: OpenSearchAdapter, other: OpenSearchAdapter, proxy: Proxy
    ) -> None:
        session = saved(adapter, "old")
        gate = proxy.stop_at("look", before="answer")
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(other.load, session.id, last_messages=9)
            gate.wait()
            adapter.delete_sessions([Target(session.id)])
            anew = adapter.commit(create_session(session.id), [said(session, "new")], expected_version=0)
            gate.open()
            loaded = found.result(60)
        assert loaded is not None
        assert (loaded.session, loaded.messages) == anew[:2]


class TestLostAnswers:
    """A connection breaks after the request was carried out; the driver repeats it by itself."""

    @pytest.mark.parametrize("step", ["look", "new", "reserve", "swap"])
    @pytest.mark.parametrize("turn_id", ["t", None])
    def test_the_commit_happens_once(
        self,
        adapter: OpenSearchAdapter,
        other: OpenSearchAdapter,
        proxy: Proxy,
        step: str,
        turn_id: str | None,
    ) -> None:
        session = create_session()
        turn = None if turn_id is None else record(session, turn_id)
        gate = proxy.stop_at(step, before="answer")
        gate.open(passing=False)
        done = other.commit(session, [said(session, "once")], expected_version=0, turn=turn)
        gate.wait()
        assert not done.repeated
        found = adapter.load(session.id, last_messages=9)
        assert found is not None
        assert (found.session, found.messages) == done[:2]

    @pytest.mark.parametrize("turn_id", ["t", None])
    @pytest.mark.parametrize("others", [1, 2])
    def test_a_commit_knows_itself_though_others_have_committed_since(
        self,
        adapter: OpenSearchAdapter,
        other: OpenSearchAdapter,
        proxy: Proxy,
        turn_id: str | None,
        others: int,
    ) -> None:
        session = saved(adapter)
        turn = None if turn_id is None else record(session, turn_id)
        gate = proxy.stop_at("swap", before="answer")
        with in_background(
            lambda: other.commit(session, [said(session, "first")], expected_version=1, turn=turn)
        ) as outcome:
            gate.wait()
            for number in range(others):
                found = adapter.load(session.id)
                assert found is not None
                adapter.commit(
                    found.session,
                    [said(session, "since")],
                    expected_version=2 + number,
                    turn=record(session, f"since {number}"),
                )
            gate.open(passing=False)
            done = outcome.result(60)
        assert (done.repeated, done.session.version, len(done.messages)) == (False, 2, 1)
        assert contents(adapter, session) == ["first", *["since"] * others]

    def test_a_commit_without_an_answer_is_settled_by_its_turn(
        self, adapter: OpenSearchAdapter, proxy: Proxy, name: str
    ) -> None:
        session = saved(adapter)
        turn = record(session, answer=1)
        with (
            closing(OpenSearch(proxy.url.replace("opensearch", "http", 1), max_retries=0)) as client,
            closing(OpenSearchAdapter(client, indices={"sessions": name})) as other,
        ):
            proxy.stop_at("swap", before="answer").open(passing=False)
            with pytest.raises(StoreUnavailableError):
                other.commit(session, [said(session, "once")], expected_version=1, turn=turn)
            again = other.commit(session, [said(session, "twice")], expected_version=1, turn=turn)
        assert (again.repeated, again.turn) == (True, turn)
        assert contents(adapter, session) == ["once"]


class TestDeletions:
    def test_nothing_is_left_of_a_deleted_session(
        self, adapter: OpenSearchAdapter, client: OpenSearch, name: str
    ) -> None:
        state = saved(adapter, "1", "2")
        for number in range(3):
            turn = record(state, f"{number}")
            state = adapter.commit(state, [said(state)], expected_version=state.version, turn=turn).session
        assert [count(client, name, index) for index in ("sessions", "messages", "turns")] == [1, 5, 7]
        adapter.delete_sessions([Target(state.id)])
        assert [count(client, name, index) for index in ("sessions", "messages", "turns")] == [0, 0, 0]

    @pytest.mark.parametrize("mend", ["another deletion", "the same ID"])
    def test_what_a_killed_deletion_leaves_is_invisible_and_removed_later(
        self, adapter: OpenSearchAdapter, proxy: Proxy, client: OpenSearch, name: str, mend: str
    ) -> None:
        session = saved(adapter, "private", user_id="u")
        script = """
            import sys
            from inturn.persistence import OpenSearchAdapter, Target

            adapter = OpenSearchAdapter(sys.argv[1], indices={"sessions": sys.argv[2]})
            adapter.delete_sessions([Target(sys.argv[3])])
        """
        gate = proxy.stop_at("_delete_by_query")
        with started_script(script, proxy.url, name, session.id) as process:
            gate.wait()
            process.kill()
            process.wait()
        gate.open(passing=False)
        assert count(client, name, "messages") == 1
        assert (adapter.load(session.id), contents(adapter, session)) == (None, [])
        assert adapter.find_messages(MessageQuery(user_id="u")).items == []
        assert adapter.search_messages("private").items == []
        assert adapter.find_sessions(SessionQuery()).items == []
        assert adapter.session_stats().sessions == 0
        if mend == "another deletion":
            assert adapter.delete_sessions([Target("another")]) == []
        else:
            adapter.commit(create_session(session.id), expected_version=0)
        assert count(client, name, "messages") == count(client, name, "turns") == 0
        assert count(client, name, "sessions") == (mend == "the same ID")

    def test_a_session_that_was_never_created_is_removed_after_an_hour(
        self,
        adapter: OpenSearchAdapter,
        other: OpenSearchAdapter,
        proxy: Proxy,
        client: OpenSearch,
        name: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        session = create_session()
        gate = proxy.stop_at("swap")
        with in_background(lambda: other.commit(session, [said(session)], expected_version=0)) as outcome:
            gate.wait()
            adapter.delete_sessions([Target("another")])
            assert count(client, name, "messages") == 1
            monkeypatch.setattr(burying, "utcnow", lambda: datetime.now(UTC) + timedelta(hours=2))
            adapter.delete_sessions([Target("another")])
            assert count(client, name, "messages") == count(client, name, "sessions") == 0
            # The one that was not dead at all, but slow, begins anew.
            gate.open()
            assert outcome.result(60).session.version == 1
        assert contents(adapter, session) == ["hello"]


class TestSearch:
    def test_messages_are_found_by_their_words(self, adapter: OpenSearchAdapter) -> None:
        ann = saved(adapter, "I want to book a Table for two", "Tomorrow!", user_id="ann")
        bob = saved(adapter, "is the table free?", user_id="bob")

        def found(text: str, **filters: Any) -> list[str]:
            return [message.session_id for message in adapter.search_messages(text, **filters).items]

        assert found("table") == [bob.id, ann.id]
        assert found("TABLE book") == [ann.id]
        assert found("table tomorrow") == []
        assert found("table", user_id="ann") == [ann.id]
        assert found("table", session_id=bob.id) == [bob.id]
        assert found("table", session_id=bob.id, user_id="ann") == []
        assert adapter.search_messages("tomorrow").items[0].content == "Tomorrow!"
        adapter.delete_sessions([Target(bob.id)])
        assert found("table") == [ann.id]

    def test_pages_neither_skip_nor_repeat(self, adapter: OpenSearchAdapter) -> None:
        session = saved(adapter, *(f"needle {number}" for number in range(7)), "hay")
        found, cursor = [], None
        while True:
            page = adapter.search_messages("needle", limit=3, cursor=cursor)
            found += [message.sequence for message in page.items]
            cursor = page.cursor
            if cursor is None:
                break
        assert found == [7, 6, 5, 4, 3, 2, 1]
        listing = adapter.find_messages(MessageQuery(session_id=session.id, limit=1))
        with pytest.raises(InvalidInputError):
            adapter.search_messages("needle", cursor=listing.cursor)

    @pytest.mark.parametrize(
        "text",
        [
            "*",
            "secr*",
            "content:secret",
            "_exists_:content",
            'nothing" OR "secret',
            "nothing || secret",
            "/secret/ nothing",
            "secret~ nothing",
            '{"match_all": {}}',
            '"}}, {"match_all": {}}',
            "((((",
            "\\",
            "\u2028",
            "🙂",
        ],
    )
    def test_no_character_of_a_text_means_anything(self, adapter: OpenSearchAdapter, text: str) -> None:
        saved(adapter, "a secret")
        assert adapter.search_messages(text).items == []

    def test_a_text_of_all_lengths_is_answered_or_refused(self, adapter: OpenSearchAdapter) -> None:
        assert adapter.search_messages("a " * 500).items == []
        bad: list[Any] = ["", "a" * 1001, None, 7, {"match_all": {}}, "a\x00", "a\ud800"]
        for text in bad:
            with pytest.raises(InvalidInputError):
                adapter.search_messages(text)
        for refused in ({"limit": 0}, {"user_id": ""}, {"session_id": {"$ne": 1}}, {"cursor": "x"}):
            with pytest.raises(InvalidInputError):
                adapter.search_messages("a", **refused)

    def test_statistics_count_what_is_there(self, adapter: OpenSearchAdapter) -> None:
        day = datetime(2024, 2, 29, 23, 59, tzinfo=UTC)
        booking = RouteRef(id="booking")
        saved(adapter, "1", "2", agent_name="Ann", created_at=day, current_route=booking)
        saved(adapter, "3", agent_name="Ann", created_at=day, status="completed")
        saved(adapter, agent_name="Bob", created_at=day + timedelta(hours=1), current_route=booking)
        gone = saved(adapter, "4", agent_name="Eve")
        adapter.delete_sessions([Target(gone.id)])
        stats = adapter.session_stats()
        assert (stats.sessions, stats.messages) == (3, 3)
        assert stats.by_status == {"active": 2, "completed": 1}
        assert stats.by_agent == {"Ann": 2, "Bob": 1}
        assert stats.by_route == {"booking": 2}
        assert {str(day): number for day, number in stats.by_day.items()} == {
            "2024-02-29": 2,
            "2024-03-01": 1,
        }

    def test_long_names_are_found(self, adapter: OpenSearchAdapter) -> None:
        """A term of Lucene's has at most 32,766 bytes."""
        names = ["x" * 40_000 + end for end in "ab"]
        made = [saved(adapter, agent_name=name, current_route=RouteRef(id=name)) for name in names]
        for name, session in zip(names, made, strict=True):
            assert adapter.find_sessions(SessionQuery(agent_name=name)).items == [session]


class TestIndices:
    def test_they_are_created_with_their_mappings(
        self, adapter: OpenSearchAdapter, client: OpenSearch, name: str
    ) -> None:
        saved(adapter, "words", data={"any": {"thing": 1}}, metadata={"new": "field"})
        mapping = client.indices.get_mapping(index=name)[name]["mappings"]
        assert mapping["properties"]["user_id"] == {"type": "keyword"}
        # What is collected makes no fields: their number would grow without end.
        assert mapping["dynamic"] == "false"
        assert "collected_data" not in mapping["properties"]

    def test_without_leave_to_create_all_that_is_missing_is_named(
        self, server: str, client: OpenSearch, name: str
    ) -> None:
        adapter = OpenSearchAdapter(server, indices={"sessions": name}, auto_create_indices=False)
        with closing(adapter), pytest.raises(ConfigurationError) as refusal:
            adapter.initialize()
        for index in (name, f"{name}_messages", f"{name}_turns"):
            assert f"index {index} is missing" in str(refusal.value)
            assert not client.indices.exists(index=index)
        with OpenSearchAdapter(server, indices={"sessions": name}):
            pass
        with OpenSearchAdapter(server, indices={"sessions": name}, auto_create_indices=False) as checked:
            saved(checked, "fine")

    def test_fields_that_are_missing_are_added(self, server: str, client: OpenSearch, name: str) -> None:
        client.indices.create(index=name, body={"mappings": {"properties": {"id": {"type": "keyword"}}}})
        without = OpenSearchAdapter(server, indices={"sessions": name}, auto_create_indices=False)
        with closing(without), pytest.raises(ConfigurationError, match="user_id"):
            without.initialize()
        with OpenSearchAdapter(server, indices={"sessions": name}) as adapter:
            session = saved(adapter, user_id="u")
            assert adapter.find_sessions(SessionQuery(user_id="u")).items == [session]

    def test_fields_of_another_type_are_named(self, server: str, client: OpenSearch, name: str) -> None:
        client.index(index=name, body={"user_id": "made by chance, as text"})
        adapter = OpenSearchAdapter(server, indices={"sessions": name})
        with closing(adapter), pytest.raises(ConfigurationError, match=rf"{name} does not map .*user_id"):
            adapter.initialize()

    def test_a_missing_index_is_named_with_the_mend(self, server: str, client: OpenSearch, name: str) -> None:
        """A read of a missing index is no session that does not exist, and a write creates none by chance."""
        with closing(OpenSearchAdapter(server, indices={"sessions": name})) as adapter:
            session = create_session()
            for call in (
                lambda: adapter.load("s"),
                lambda: adapter.commit(session, [said(session)], expected_version=0),
                lambda: adapter.find_sessions(SessionQuery()),
                lambda: adapter.delete_sessions([Target("s")]),
                adapter.session_stats,
            ):
                with pytest.raises(StoreError, match=rf"{name} is missing: call initialize\(\)"):
                    call()
        assert not client.indices.exists(index=name)

    @pytest.mark.parametrize(
        "indices",
        [
            *({"sessions": name} for name in ("Capital", "a,b", "_all", "*", "", "x" * 201)),
            {"session": "a"},
            {"sessions": "a", "messages": "a"},
        ],
    )
    def test_names_that_cannot_work_are_refused(self, indices: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError):
            OpenSearchAdapter("opensearch://127.0.0.1", indices=indices)


class TestSources:
    @pytest.mark.parametrize(
        "source",
        [
            "http://127.0.0.1:9200",
            "opensearch://",
            "opensearch://host:port",
            "opensearch://host#fragment",
            "opensearch://host?verify_certs=false",
            "opensearchs://host?verify_certs=maybe",
            "opensearchs://host?insecure=true",
            "opensearch://user:secret@host?nonsense",
            None,
            7,
        ],
    )
    def test_a_source_of_no_kind_is_refused_without_its_password(self, source: Any) -> None:
        with pytest.raises(ConfigurationError) as refusal:
            OpenSearchAdapter(source)
        assert "secret" not in str(refusal.value)

    def test_a_server_without_tls_is_not_trusted(self, server: str) -> None:
        if server.startswith("opensearchs"):
            pytest.skip("this one has TLS")
        with closing(open_adapter(server.replace("opensearch", "opensearchs", 1))) as adapter:
            with pytest.raises(StoreError) as error:
                adapter.ping()
            assert not error.value.retryable

    def test_a_closed_adapter_says_so(self, adapter: OpenSearchAdapter) -> None:
        adapter.close()
        for call in (adapter.ping, adapter.initialize):
            with pytest.raises(StoreError, match="closed"):
                call()

    def test_a_callers_client_stays_open(self, client: OpenSearch, name: str) -> None:
        with OpenSearchAdapter(client, indices={"sessions": name}) as adapter:
            saved(adapter)
        assert client.ping()

    def test_a_server_that_went_and_came_back(self, name: str) -> None:
        with own_opensearch() as (process, url):
            adapter = OpenSearchAdapter(url, indices={"sessions": name})
            adapter.initialize()
            process.kill()
            process.wait()
            for call in (adapter.ping, adapter.session_stats, lambda: adapter.load("s")):
                with pytest.raises(StoreUnavailableError):
                    call()
            with own_opensearch(port=int(url.rpartition(":")[2])), closing(adapter):
                adapter.initialize()
                assert adapter.load("s") is None

    def test_each_process_opens_its_own_connections_after_a_fork(self, server: str, name: str) -> None:
        told = run_script(
            """
            import os, sys
            from contextlib import closing
            from opensearchpy import OpenSearch, exceptions
            from inturn.errors import StoreError
            from inturn.persistence import OpenSearchAdapter
            from inturn.session import create_session

            url, name = sys.argv[1:]
            with (
                OpenSearchAdapter(url, indices={"sessions": name}) as adapter,
                closing(OpenSearch(url.replace("opensearch", "http", 1))) as client,
            ):
                given = OpenSearchAdapter(client, indices={"sessions": name})
                given.ping()
                state = adapter.commit(create_session("s"), expected_version=0).session
                if os.fork() == 0:
                    state = adapter.commit(state, expected_version=1).session
                    adapter.close()
                    try:
                        given.ping()
                    except StoreError as error:
                        print(error, flush=True)
                    os._exit(0)
                os.wait()
                given.ping()
                found = adapter.load("s").session
                print(adapter.commit(found, expected_version=2).session.version)
            """,
            server,
            name,
        )
        assert told == "a client does not survive a fork: give the adapter a URL\n3\n"

    def test_greenlets_wait_for_the_server_side_by_side(
        self, adapter: OpenSearchAdapter, proxy: Proxy, name: str
    ) -> None:
        """Under gevent a call that waits for the server lets the others go on."""
        gate = proxy.stop_at("look", before="answer")
        with started_script(
            """
            from gevent import monkey, spawn, joinall
            monkey.patch_all()
            from inturn.persistence import OpenSearchAdapter
            from inturn.session import create_session

            adapter = OpenSearchAdapter(sys.argv[1], indices={"sessions": sys.argv[2]})
            waiting = spawn(adapter.load, "s")
            waiting.join(1)  # it is stopped: whoever looks first is
            others = [spawn(adapter.commit, create_session(), expected_version=0) for _ in range(20)]
            joinall(others, raise_error=True)
            print(len(others), waiting.ready(), flush=True)
            sys.stdin.read()
            print(waiting.get())
            adapter.close()
            """,
            proxy.url,
            name,
        ) as process:
            gate.wait()
            assert next_line(process) == "20 False"
            gate.open()
            told, _ = process.communicate(timeout=60)
            assert (process.returncode, told) == (0, "None\n")


class TestErrors:
    @pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 400, 401, 403, 404, 409, 413, 500])
    def test_an_answer_is_an_error_of_ours_without_the_words_of_a_conversation(self, status: int) -> None:
        error = translated(status, {"type": "some_exception", "reason": "Preview of field's value: 'secret'"})
        assert isinstance(error, StoreUnavailableError) == (status in (408, 429, 502, 503, 504))
        assert str(status) in str(error)
        assert "secret" not in str(error)

    def test_no_error_of_the_driver_comes_out(
        self, adapter: OpenSearchAdapter, client: OpenSearch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kinds = [getattr(exceptions, name) for name in exceptions.__all__]
        failures = [kind for kind in kinds if issubclass(kind, exceptions.OpenSearchException)]
        assert len(failures) > 8
        with closing(OpenSearchAdapter(client)) as failing:
            for kind in failures:
                error = kind("N/A", "failed", OSError("failed"))

                def fail(*_: object, error: Exception = error, **__: object) -> None:
                    raise error

                monkeypatch.setattr(client.transport, "perform_request", fail)
                with pytest.raises(StoreError):
                    failing.ping()

    def test_an_answer_that_is_none_of_opensearchs_is_an_error_of_ours(
        self, other: OpenSearchAdapter, proxy: Proxy
    ) -> None:
        proxy.answering_html = True
        for call in (lambda: other.load("s"), lambda: other.find_sessions(SessionQuery())):
            with pytest.raises(StoreError):
                call()


class TestCost:
    """Requests and bytes, as they pass by."""

    def test_the_cost_of_a_turn_is_flat_in_the_length_of_the_session(
        self, adapter: OpenSearchAdapter, other: OpenSearchAdapter, proxy: Proxy
    ) -> None:
        def cost(session: SessionState) -> dict[str, list[Exchange]]:
            newest = MessageQuery(session_id=session.id, limit=10, order="newest")
            proxy.taken()
            costs = {}
            found = other.load(session.id, last_messages=10, turn_id=f"{session.id}:next")
            costs["load"] = proxy.taken()
            assert found is not None
            turn = record(session, f"{session.id}:next")
            other.commit(found.session, [said(session)], expected_version=session.version, turn=turn)
            costs["commit"] = proxy.taken()
            other.find_messages(newest)
            costs["newest"] = proxy.taken()
            return costs

        short, long = (cost(saved(adapter, *["hello"] * length)) for length in (20, 10_000))
        steps = {name: [each.step for each in exchanges] for name, exchanges in long.items()}
        assert steps == {
            "load": ["look", "look"],
            "commit": ["look", "reserve", "swap"],
            "newest": ["look", "look"],
        }
        for name, exchanges in short.items():
            assert 0 < _sent(long[name]) <= 1.1 * _sent(exchanges)
            assert 0 < _received(long[name]) <= 1.1 * _received(exchanges)

    def test_a_search_refreshes_only_what_was_written(self, other: OpenSearchAdapter, proxy: Proxy) -> None:
        def steps() -> list[str]:
            return [exchange.step for exchange in proxy.taken()]

        session = saved(other, user_id="u")
        steps()
        for expected in (["_refresh", "_search"], ["_search"]):
            assert other.find_sessions(SessionQuery(user_id="u")).items == [session]
            assert steps() == expected


def _sent(exchanges: list[Exchange]) -> int:
    return sum(each.sent for each in exchanges)


def _received(exchanges: list[Exchange]) -> int:
    return sum(each.received for each in exchanges)


class TestFaultsOfTheOriginal:
    def test_two_writers_that_read_then_update_lose_nothing(
        self, adapter: OpenSearchAdapter, other: OpenSearchAdapter, proxy: Proxy
    ) -> None:
        """The original read and then updated: both writers were told OK, and one update was lost."""
        session = saved(adapter)
        gate = proxy.stop_at("swap")
        with ThreadPoolExecutor(1) as thread:
            late = thread.submit(SessionRepository(other).update_collected_data, session.id, {"late": 1})
            gate.wait()
            SessionRepository(adapter).update_collected_data(session.id, {"first": 1})
            gate.open()
            assert late.result(60).data == {"first": 1, "late": 1}
        found = adapter.load(session.id)
        assert found is not None
        assert (found.session.data, found.session.version) == ({"first": 1, "late": 1}, 3)

    def test_cleared_keys_and_consumed_directives_stay_away(self, adapter: OpenSearchAdapter) -> None:
        """The original merged a partial document into the stored one: what was cleared came back."""
        session = saved(
            adapter,
            data={"city": "Lagos", "nested": {"a": 1, "b": 2}},
            pending={"directive": "consumed"},
            current_route=RouteRef(id="finished"),
            current_step=StepRef(id="last"),
        )
        session.data = {"nested": {"b": 2}}
        session.pending = session.current_route = session.current_step = None
        adapter.commit(session, expected_version=1)
        found = adapter.load(session.id)
        assert found is not None
        assert (found.session.data, found.session.pending) == ({"nested": {"b": 2}}, None)
        assert (found.session.current_route, found.session.current_step) == (None, None)

    def test_the_status_of_a_missing_session_is_a_clear_error_and_creates_none(
        self, adapter: OpenSearchAdapter
    ) -> None:
        """The original's update of a missing row raised what the driver raised."""
        with pytest.raises(SessionNotFoundError):
            SessionRepository(adapter).update_status("missing", "completed")
        assert adapter.load("missing") is None
        assert adapter.find_sessions(SessionQuery()).items == []

    def test_what_was_just_committed_is_found_by_every_listing(self, adapter: OpenSearchAdapter) -> None:
        """The original wrote without a refresh by default: a listing right after did not see it."""
        for number in range(1, 4):
            session = saved(adapter, "just said", user_id="u")
            assert SessionRepository(adapter).find_active_by_user_id("u") == session
            assert len(adapter.find_messages(MessageQuery(user_id="u")).items) == number
            assert len(adapter.search_messages("just said").items) == number
            assert adapter.session_stats().sessions == number

    def test_creating_a_session_that_another_has_just_created_overwrites_nothing(
        self, adapter: OpenSearchAdapter, other: OpenSearchAdapter, proxy: Proxy
    ) -> None:
        """The original looked first and then wrote: the second of two creators replaced the first's."""
        session = create_session()
        gate = proxy.stop_at("new")
        late = create_session(session.id, data={"by": "late"})
        with in_background(lambda: other.commit(late, expected_version=0)) as outcome:
            gate.wait()
            adapter.commit(create_session(session.id, data={"by": "first"}), expected_version=0)
            gate.open()
            with pytest.raises(SessionConflictError):
                outcome.result(60)
        found = adapter.load(session.id)
        assert found is not None
        assert found.session.data == {"by": "first"}
