"""ArchivingAdapter keeps the contract of its hot store, and its archive follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from inturn.errors import StoreUnavailableError
from inturn.persistence import MemoryAdapter, PersistenceAdapter, SQLiteAdapter, open_adapter
from inturn.persistence.adapter import MAX_PAGE, Committed, Loaded, MessageQuery, SessionQuery, Target
from inturn.persistence.archiving import PROGRESS_ID, ArchivingAdapter, CaughtUp
from inturn.session import Message, SessionState
from inturn.session.state import create_session, utcnow
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen, message, messages, recommit, saved, turn
from tests.conformance.scripts import next_line, run_script, started_script
from tests.stores import TroubledStore


def all_messages(adapter: PersistenceAdapter, session_id: str) -> list[Message]:
    """Every message of a session, in order."""
    found: list[Message] = []
    after = 0
    while page := adapter.find_messages(
        MessageQuery(session_id=session_id, after=after, limit=MAX_PAGE)
    ).items:
        found += page
        after = page[-1].sequence
    return found


def all_sessions(adapter: PersistenceAdapter) -> dict[str, SessionState]:
    """Every session but the note of `catch_up`."""
    page = adapter.find_sessions(SessionQuery(limit=MAX_PAGE))
    assert page.cursor is None
    return {session.id: session for session in page.items if session.id != PROGRESS_ID}


def said(adapter: PersistenceAdapter, session_id: str) -> list[str]:
    return [each.content for each in all_messages(adapter, session_id)]


def assert_archived(store: ArchivingAdapter, *session_ids: str) -> None:
    """The archive has these sessions, equal in all that the docstring calls equal."""
    for session_id in session_ids:
        hot, archived = store.hot.load(session_id), store.archive.load(session_id)
        assert hot is not None
        assert archived is not None
        own = {"version", "updated_at"}
        assert archived.session.model_dump(exclude=own) == hot.session.model_dump(exclude=own)
        assert all_messages(store.archive, session_id) == all_messages(store.hot, session_id)


class TestArchivingSQLite(AdapterConformance):
    """What is deleted goes from both, so that after each test both must hold the same."""

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        hot, archive = (f"sqlite:///{tmp_path}/{name}.db" for name in ("hot", "archive"))
        return partial(ArchivingAdapter, hot, archive, delete_from_archive=True)

    @pytest.fixture
    def adapter(self, reopen: Callable[[], ArchivingAdapter]) -> Iterator[PersistenceAdapter]:
        with capture_logs() as logs, reopen() as store:
            yield store
            while not store.catch_up().finished:  # the kit kills writers
                pass
            hot_sessions = all_sessions(store.hot)
            assert hot_sessions.keys() == all_sessions(store.archive).keys()
            assert_archived(store, *hot_sessions)
        assert [line for line in logs if line["event"] == "session not archived"] == []


@pytest.mark.variant
class TestArchivingFromPostgreSQL(AdapterConformance):
    """What is deleted stays in the archive."""

    @pytest.fixture(scope="class")
    @classmethod
    def archive_url(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return f"sqlite:///{tmp_path_factory.mktemp('archive')}/archive.db"

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, schema_url: str, archive_url: str) -> Iterator[PersistenceAdapter]:
        with ArchivingAdapter(schema_url, archive_url) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, schema_url: str, archive_url: str) -> Reopen:
        return partial(ArchivingAdapter, schema_url, archive_url)


@pytest.fixture(params=["memory, sqlite", "sqlite, memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArchivingAdapter]:
    """A hot store and an archive of two kinds."""
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/sessions.db"}
    hot, archive = (urls[name] for name in request.param.split(", "))
    with ArchivingAdapter(hot, archive) as store:
        yield store


class Troubled:
    """Two memory stores, the archive of which fails where a test says."""

    def __init__(self) -> None:
        self.archive = TroubledStore()
        self.store = ArchivingAdapter(MemoryAdapter(), self.archive)
        self.store.initialize()

    def commit_unseen(self, session: SessionState, *some: Message) -> SessionState:
        """A commit whose process died before it could copy."""
        return self.store.hot.commit(session, some, expected_version=session.version).session


@pytest.fixture
def troubled() -> Troubled:
    return Troubled()


class TestCopies:
    def test_a_commit_is_in_the_archive_when_it_returns(self, store: ArchivingAdapter) -> None:
        session = saved(store, 2, user_id="u", data={"city": "Lagos"}, metadata={"a": 1})
        assert_archived(store, session.id)
        session.data["city"] = "Accra"
        session.set_status("completed")
        session = recommit(store, session, *messages(session.id, 3)).session
        assert_archived(store, session.id)
        session.history_start = 4
        recommit(store, session)
        assert_archived(store, session.id)

    def test_a_commit_brings_along_what_was_missed_before(self, store: ArchivingAdapter) -> None:
        session = saved(store, 1)
        for _ in range(3):
            session = recommit(store.hot, session, *messages(session.id, 2)).session
        recommit(store, session, message(session.id, "last"))
        assert_archived(store, session.id)

    def test_a_turn_that_was_committed_before_is_copied_now(self, store: ArchivingAdapter) -> None:
        """The first process died between the two stores; the turn is repeated and answered from the store."""
        session, record = saved(store), turn("?")
        record.session_id = session.id
        some = messages(session.id, 2)
        store.hot.commit(session, some, expected_version=1, turn=record)
        assert store.commit(session, some, expected_version=1, turn=record).repeated
        assert_archived(store, session.id)

    def test_a_long_history_is_copied_in_parts(self, store: ArchivingAdapter) -> None:
        session = saved(store.hot)
        for _ in range(3):
            session = recommit(store.hot, session, *messages(session.id, 900)).session
        recommit(store, session)
        assert_archived(store, session.id)
        archived = store.archive.load(session.id)
        assert archived is not None
        assert archived.session.version == 3

    def test_a_copy_that_ended_half_way_goes_on_where_it_was(self, troubled: Troubled) -> None:
        session = troubled.commit_unseen(create_session("long"))
        for _ in range(3):
            session = troubled.commit_unseen(session, *messages("long", 900))
        store, archive = troubled.store, troubled.archive
        archive.meanwhile += [lambda: None, lambda: archive.failing.add("commit")]

        recommit(store, session)
        archived = len(all_messages(archive, "long"))
        assert 0 < archived < 2700

        archive.failing.clear()
        commits = archive.commits
        store.catch_up()
        assert_archived(store, "long")
        assert archive.commits - commits <= 3

    def test_an_id_that_is_used_again_goes_on_in_the_archive(self, store: ArchivingAdapter) -> None:
        first = saved(store, 3)
        store.delete_sessions([Target(first.id)])
        assert store.load(first.id) is None
        assert len(said(store.archive, first.id)) == 3

        again = create_session(first.id, data={"new": True})
        again = store.commit(again, [message(first.id, "a")], expected_version=0).session
        again.history_start = 1
        recommit(store, again, message(first.id, "b"))

        assert said(store, first.id) == ["a", "b"]
        assert said(store.archive, first.id) == ["1", "2", "3", "a", "b"]
        archived = store.archive.load(first.id)
        assert archived is not None
        assert (archived.session.data, archived.session.history_start) == ({"new": True}, 4)
        assert store.catch_up() == CaughtUp(checked=1, copied=0, failed=0, finished=True)

    @pytest.mark.parametrize("missed", [0, 2])
    def test_messages_that_expire_in_the_hot_store_stay_in_the_archive(
        self, troubled: Troubled, missed: int
    ) -> None:
        store = troubled.store
        session = saved(store, 4)
        if missed:
            session = troubled.commit_unseen(session, *messages(session.id, missed))
        assert isinstance(store.hot, MemoryAdapter)
        store.hot._messages[session.id].clear()

        session = recommit(store, session, message(session.id, "a")).session
        recommit(store, session, message(session.id, "b"))

        assert said(store, session.id) == ["a", "b"]
        assert said(store.archive, session.id) == ["1", "2", "3", "4", "a", "b"]
        archived = store.archive.load(session.id)
        assert archived is not None
        assert (archived.session.message_count, archived.session.history_start) == (6, 0)


class TestAwayArchive:
    def test_no_turn_fails(self, troubled: Troubled) -> None:
        troubled.archive.failing = {"load", "commit"}
        with capture_logs() as logs:
            session = saved(troubled.store, 2)
        assert said(troubled.store, session.id) == ["1", "2"]
        assert [(line["event"], line["log_level"], line["session_id"]) for line in logs] == [
            ("session not archived", "warning", session.id)
        ]

    def test_no_turn_waits_for_it_again_and_again(self, troubled: Troubled) -> None:
        troubled.archive.failing = {"load"}
        session = saved(troubled.store, 2)
        asked = troubled.archive.loads
        recommit(troubled.store, session)
        assert troubled.archive.loads == asked

    def test_an_error_that_nobody_expected_fails_no_turn_either(self) -> None:
        class Broken(MemoryAdapter):
            def commit(self, *args: Any, **kwargs: Any) -> Committed:
                raise ZeroDivisionError("what the user said")

        with capture_logs() as logs:
            saved(ArchivingAdapter(MemoryAdapter(), Broken()), 2)
        assert [line["error"] for line in logs] == ["ZeroDivisionError"]

    def test_an_archive_that_was_away_at_the_start_is_prepared_later(self, tmp_path: Path) -> None:
        archive = tmp_path / "not there yet" / "archive.db"
        with ArchivingAdapter("memory://", LateSQLite(f"sqlite:///{archive}")) as store:
            session = saved(store, 2)
            with pytest.raises(StoreUnavailableError):
                store.catch_up()
            archive.parent.mkdir()
            assert store.catch_up().copied == 1
            assert_archived(store, session.id)

    def test_catch_up_says_that_it_is_away_and_loses_no_place(self, troubled: Troubled) -> None:
        session = troubled.commit_unseen(create_session("one"), message("one"))
        troubled.archive.failing = {"commit"}
        with pytest.raises(StoreUnavailableError):
            troubled.store.catch_up()
        troubled.archive.failing = set()
        troubled.store.catch_up()
        assert_archived(troubled.store, session.id)


class LateSQLite(SQLiteAdapter):
    """An archive on a disk that is mounted late."""

    def initialize(self) -> None:
        try:
            super().initialize()
        except Exception as error:
            raise StoreUnavailableError from error


class TestCatchUp:
    def test_what_commits_left_behind_is_copied_once(self, troubled: Troubled) -> None:
        for name in "abc":
            session = troubled.commit_unseen(create_session(name), message(name))
        troubled.commit_unseen(session, message("c"))

        assert troubled.store.catch_up() == CaughtUp(checked=3, copied=3, failed=0, finished=True)

        assert_archived(troubled.store, *"abc")
        commits = troubled.archive.commits
        assert troubled.store.catch_up() == CaughtUp(checked=3, copied=0, failed=0, finished=True)
        assert troubled.archive.commits == commits + 1, "only the note of how far it has come"

    def test_it_goes_on_where_it_stopped(self, troubled: Troubled) -> None:
        names = [f"s{number}" for number in range(7)]
        for name in names:
            troubled.commit_unseen(create_session(name), message(name))
        calls = [troubled.store.catch_up(limit=3) for _ in range(3)]
        assert calls == [CaughtUp(3, 3, 0, False), CaughtUp(3, 3, 0, False), CaughtUp(1, 1, 0, True)]
        assert_archived(troubled.store, *names)

    def test_it_does_not_begin_with_the_oldest_session_each_time(self, troubled: Troubled) -> None:
        store = troubled.store
        hours_ago = utcnow() + timedelta(hours=-3)
        for name in ("old", "older"):
            row = troubled.commit_unseen(create_session(name), message(name))
            age(store.hot, row.id, hours_ago)
        troubled.commit_unseen(create_session("new"), message("new"))
        assert store.catch_up() == CaughtUp(checked=3, copied=3, failed=0, finished=True)
        assert store.catch_up() == CaughtUp(checked=1, copied=0, failed=0, finished=True)
        assert store.catch_up(from_start=True) == CaughtUp(checked=3, copied=0, failed=0, finished=True)

    def test_a_clock_that_is_ahead_hides_nothing(self, troubled: Troubled) -> None:
        tomorrow = utcnow() + timedelta(days=1)
        troubled.commit_unseen(create_session("ahead", updated_at=tomorrow), message("ahead"))
        troubled.store.catch_up()
        troubled.commit_unseen(create_session("now"), message("now"))
        assert troubled.store.catch_up() == CaughtUp(checked=2, copied=1, failed=0, finished=True)

    def test_a_clock_that_is_behind_hides_nothing(self, troubled: Troubled) -> None:
        troubled.commit_unseen(create_session("now"), message("now"))
        troubled.store.catch_up()
        troubled.commit_unseen(create_session("behind"), message("behind"))
        age(troubled.store.hot, "behind", utcnow() - timedelta(minutes=5))
        troubled.store.catch_up()
        assert_archived(troubled.store, "behind")

    def test_a_session_that_cannot_be_copied_holds_up_no_other(self, troubled: Troubled) -> None:
        """The hot store was restored from a backup and went on otherwise than the archive knows."""
        store = troubled.store
        shared = message("restored", "before the backup")
        for adapter, end in ((store.archive, "lost"), (store.hot, "anew")):
            adapter.commit(create_session("restored"), [shared, message("restored", end)], expected_version=0)
        troubled.commit_unseen(create_session("z"), message("z"))
        with capture_logs() as logs:
            assert store.catch_up() == CaughtUp(checked=2, copied=1, failed=1, finished=True)
        assert [line["session_id"] for line in logs] == ["restored"]
        assert_archived(store, "z")
        assert said(store.archive, "restored") == ["before the backup", "lost"]

    @pytest.mark.parametrize("reads", [1, 2])
    def test_a_newer_copy_is_never_overwritten_by_an_older(self, reads: int) -> None:
        """While one process copies, another commits and copies something newer: after each of the reads."""
        meanwhile: list[Callable[[], object]] = []

        class Overtaken(MemoryAdapter):
            def load(self, session_id: str, **options: Any) -> Loaded | None:
                found = super().load(session_id, **options)
                if meanwhile:
                    meanwhile.pop()()
                return found

        store = ArchivingAdapter(Overtaken(), Overtaken())
        session = saved(store, 1)
        session.data = {"state": "older"}

        def overtake() -> None:
            current = store.hot.load(session.id)
            assert current is not None
            current.session.data = {"state": "newer"}
            recommit(store, current.session)

        meanwhile += [overtake, lambda: None][:reads]
        recommit(store, session)
        assert meanwhile == []
        archived = store.archive.load(session.id)
        assert archived is not None
        assert archived.session.data == {"state": "newer"}
        assert_archived(store, session.id)


class TestDeletion:
    def test_what_is_deleted_stays_in_the_archive(self, store: ArchivingAdapter) -> None:
        session = saved(store, 2)
        assert store.delete_sessions([Target(session.id, 1)]) == [session.id]
        assert store.load(session.id) is None
        assert said(store.archive, session.id) == ["1", "2"]
        store.catch_up(from_start=True)
        assert said(store.archive, session.id) == ["1", "2"]

    def test_on_demand_it_goes_from_both(self) -> None:
        store = ArchivingAdapter(MemoryAdapter(), MemoryAdapter(), delete_from_archive=True)
        gone, changed = saved(store, 2), recommit(store, saved(store, 2)).session
        assert store.delete_sessions([Target(gone.id, 1), Target(changed.id, 1)]) == [gone.id]
        assert store.archive.load(gone.id) is None
        assert_archived(store, changed.id)

    def test_on_demand_nothing_is_deleted_while_the_archive_is_away(self) -> None:
        """Otherwise nobody would look for it in the archive again."""
        archive = TroubledStore()
        store = ArchivingAdapter(MemoryAdapter(), archive, delete_from_archive=True)
        session = saved(store, 2)
        archive.failing = {"delete_sessions"}
        with pytest.raises(StoreUnavailableError):
            store.delete_sessions([Target(session.id)])
        assert store.load(session.id) is not None

    def test_purge_reaches_both_and_may_be_repeated(self, troubled: Troubled) -> None:
        store = troubled.store
        kept, retired, current = saved(store, 1), saved(store, 1), saved(store, 1)
        store.delete_sessions([Target(retired.id)])
        troubled.archive.failing = {"delete_sessions"}
        with pytest.raises(StoreUnavailableError):
            store.purge([retired.id, current.id])
        troubled.archive.failing = set()
        assert store.purge([retired.id, current.id, "nobody"]) == [retired.id, current.id]
        for adapter in (store.hot, store.archive):
            assert all_sessions(adapter).keys() == {kept.id}
            assert said(adapter, retired.id) == said(adapter, current.id) == []

    @pytest.mark.parametrize("copied_before", [True, False])
    @pytest.mark.parametrize("used_again", [True, False])
    def test_a_copy_on_its_way_brings_nothing_back(
        self, troubled: Troubled, copied_before: bool, used_again: bool
    ) -> None:
        """A session is purged between the commit of a turn and its copy."""
        store = troubled.store
        session = (saved(store, 1) if copied_before else None) or create_session("one")

        def purge() -> None:
            store.purge([session.id])
            if used_again:
                troubled.commit_unseen(create_session(session.id), message(session.id, "later"))

        troubled.archive.meanwhile.append(purge)
        store.commit(session, [message(session.id, "purged")], expected_version=session.version)
        assert "purged" not in said(store.archive, session.id)
        store.catch_up(from_start=True)
        assert said(store.archive, session.id) == (["later"] if used_again else [])


def test_an_archived_session_that_was_made_anew_meanwhile_is_no_error(troubled: Troubled) -> None:
    """Its version is the one that the copy has seen; its messages are not."""
    store = troubled.store
    session = saved(store, 2)

    def make_anew() -> None:
        store.archive.delete_sessions([Target(session.id)])
        store.catch_up(from_start=True)

    troubled.archive.meanwhile.append(make_anew)
    with capture_logs() as logs:
        recommit(store, session, *messages(session.id, 2))
    assert logs == []
    assert_archived(store, session.id)


KILLED = """
    from inturn.persistence import open_adapter
    from inturn.persistence.archiving import ArchivingAdapter
    from inturn.persistence.sqlite import SQLiteAdapter
    from inturn.testing.conformance.base import messages, recommit, saved

    class Hot(SQLiteAdapter):
        waits = False

        def commit(self, *args, **kwargs):
            committed = super().commit(*args, **kwargs)
            if self.waits:
                print("committed", flush=True)
                sys.stdin.read()
            return committed

    class Archive(SQLiteAdapter):
        waits = False

        def commit(self, *args, **kwargs):
            committed = super().commit(*args, **kwargs)
            if self.waits:
                print("copied in part", flush=True)
                sys.stdin.read()
            return committed

    hot, archive, where = sys.argv[1:]
    with ArchivingAdapter(Hot(hot), Archive(archive)) as store:
        store.initialize()
        session = saved(store, 2)
        print(session.id, flush=True)
        if where == "half way through":
            for _ in range(3):
                session = recommit(store.hot, session, *messages(session.id, 900)).session
            store.archive.waits = True
        else:
            store.hot.waits = True
        recommit(store, session, *messages(session.id, 2))
"""

CATCH_UP = """
    from inturn.persistence.archiving import ArchivingAdapter

    with ArchivingAdapter(*sys.argv[1:]) as store:
        print(*store.catch_up())
"""


@pytest.mark.process
@pytest.mark.parametrize("where", ["between the two", "half way through"])
def test_what_a_killed_process_has_not_copied_is_caught_up(tmp_path: Path, where: str) -> None:
    """SIGKILL after the hot commit, and after the first part of a long copy; another process goes on."""
    hot, archive = f"sqlite:///{tmp_path}/hot.db", f"sqlite:///{tmp_path}/archive.db"
    with started_script(KILLED, hot, archive, where) as process:
        session_id = next_line(process)
        assert next_line(process) in ("committed", "copied in part")
        process.kill()
        process.wait()
    with ExitStack() as stack:
        store = stack.enter_context(
            ArchivingAdapter(
                stack.enter_context(open_adapter(hot)), stack.enter_context(open_adapter(archive))
            )
        )
        expected = 4 if where == "between the two" else 2704
        assert len(all_messages(store.hot, session_id)) == expected
        assert len(all_messages(store.archive, session_id)) < expected

        assert run_script(CATCH_UP, hot, archive).split() == ["1", "1", "0", "True"]

        assert_archived(store, session_id)
        assert run_script(CATCH_UP, hot, archive).split() == ["1", "0", "0", "True"]


def age(adapter: PersistenceAdapter, session_id: str, updated_at: Any) -> None:
    """Set `updated_at` in a memory store, as a clock that is behind would have."""
    assert isinstance(adapter, MemoryAdapter)
    adapter._sessions[session_id]["updated_at"] = updated_at


def test_adapters_stay_the_callers_to_close_and_urls_are_closed(tmp_path: Path) -> None:
    closed: list[str] = []

    def closing(name: str) -> Callable[[], None]:
        return lambda: closed.append(name)

    mine = MemoryAdapter()
    store = ArchivingAdapter(mine, f"sqlite:///{tmp_path}/archive.db")
    for name, adapter in (("hot", store.hot), ("archive", store.archive)):
        adapter.close = closing(name)  # type: ignore[method-assign]
    store.close()
    assert closed == ["archive"]


def test_what_a_caller_may_expect_is_what_the_hot_store_does() -> None:
    store = ArchivingAdapter("memory://", "sqlite:///:memory:")
    assert (store.durable, store.supports_expiry, store.supports_search) == (False, False, False)
    store.close()
