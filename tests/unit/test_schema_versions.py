"""Schema versions: sessions of older releases are brought to our shape, those of newer ones left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel
from structlog.testing import capture_logs

from inturn.agent import Agent
from inturn.agent.offline import OfflineProvider
from inturn.errors import (
    AgentDefinitionError,
    InvalidInputError,
    SessionError,
    SessionMigrationError,
    SessionTooNewError,
)
from inturn.persistence import MemoryAdapter, PersistenceAdapter, PersistenceManager, SQLiteAdapter
from inturn.session import Message, SessionManager, SessionState, TurnRecord, create_session
from inturn.settings import Settings
from worker.runtime import Runtime


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PersistenceAdapter]:
    made = (
        MemoryAdapter() if request.param == "memory" else SQLiteAdapter(f"sqlite:///{tmp_path}/sessions.db")
    )
    with made:
        yield made


def split_name(session: SessionState, version: int | None) -> SessionState:
    """From `name` to `first` and `last`, and from no version to 1 without a change."""
    if version == 1:
        session.data["first"], session.data["last"] = session.data.pop("name").split()
    return session


def old(store: PersistenceAdapter, version: int | None = 1, **fields: Any) -> SessionState:
    """A session that another release has left."""
    session = create_session("s", data={"name": "Ada Lovelace"}, schema_version=version, **fields)
    said = [Message(session_id="s", role="user", content="hello")]
    return store.commit(session, said, expected_version=0).session


def stored(store: PersistenceAdapter) -> SessionState:
    found = store.load("s")
    assert found is not None
    return found.session


MIGRATED = {"first": "Ada", "last": "Lovelace"}


class TestStamping:
    @pytest.mark.parametrize(
        "save",
        [
            lambda manager: manager.create_session(id="s"),
            lambda manager: manager.save_session_state("s", create_session("s")),
            lambda manager: manager.commit(create_session("s")),
            lambda manager: manager.save_turn("s", "t", data={"a": 1}),
            lambda manager: SessionManager(manager, session_id="s").get_or_create(),
            lambda manager: SessionManager(manager, session_id="s").add_message("user", "hello"),
        ],
    )
    def test_a_new_session_gets_the_version(
        self, store: PersistenceAdapter, save: Callable[[PersistenceManager], object]
    ) -> None:
        save(PersistenceManager(store, schema_version=2))

        assert stored(store).schema_version == 2

    def test_it_keeps_the_version_through_later_saves(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(PersistenceManager(store, schema_version=2), session_id="s")
        manager.add_message("user", "hello")
        manager.set_data({"a": 1})
        manager.load()
        manager.commit()

        assert stored(store).schema_version == 2
        assert manager.current is not None
        assert manager.current.schema_version == 2

    def test_a_session_after_a_reset_has_it_too(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(PersistenceManager(store, schema_version=2), session_id="s")
        manager.add_message("user", "hello")
        new = manager.reset(preserve_history=True)
        manager.set_data({"a": 1})
        found = store.load(new.id)

        assert found is not None
        assert found.session.schema_version == 2

    def test_without_a_version_sessions_have_none(self, store: PersistenceAdapter) -> None:
        PersistenceManager(store).create_session(id="s")

        assert stored(store).schema_version is None


class TestMigrating:
    @pytest.fixture
    def manager(self, store: PersistenceAdapter) -> PersistenceManager:
        return PersistenceManager(store, schema_version=2, migrate_session=split_name)

    @pytest.mark.parametrize(
        "load",
        [
            lambda manager: manager.find_session_by_id("s"),
            lambda manager: manager.find_active_session_by_user_id("ann"),
            lambda manager: manager.load_session_state("s"),
            lambda manager: manager.load("s").session,
            lambda manager: SessionManager(manager, session_id="s").get_or_create(),
        ],
    )
    def test_an_older_session_is_loaded_in_the_new_shape(
        self,
        store: PersistenceAdapter,
        manager: PersistenceManager,
        load: Callable[[PersistenceManager], SessionState],
    ) -> None:
        before = old(store, user_id="ann")
        session = load(manager)

        assert (session.data, session.schema_version) == (MIGRATED, 2)
        assert session.version == before.version

    def test_a_load_writes_nothing(self, store: PersistenceAdapter, manager: PersistenceManager) -> None:
        before = old(store)
        manager.load("s")

        assert stored(store) == before

    @pytest.mark.parametrize(
        "change",
        [
            lambda manager: manager.save_session_state("s", manager.load_session_state("s")),
            lambda manager: manager.update_session_status("s", "active"),
            lambda manager: manager.update_collected_data("s", {"city": "London"}),
            lambda manager: manager.update_route_step("s", "booking"),
            lambda manager: manager.save_message(session_id="s", role="user", content="hi"),
            lambda manager: manager.save_turn("s", "t", data={"city": "London"}),
            lambda manager: SessionManager(manager, session_id="s").set_data({"city": "London"}),
            lambda manager: SessionManager(manager, session_id="s").add_message("user", "hi"),
        ],
    )
    def test_the_next_save_writes_the_new_shape_and_its_version(
        self,
        store: PersistenceAdapter,
        manager: PersistenceManager,
        change: Callable[[PersistenceManager], object],
    ) -> None:
        old(store)
        change(manager)
        after = stored(store)

        assert {name: after.data.get(name) for name in ("first", "last", "name")} == {
            **MIGRATED,
            "name": None,
        }
        assert (after.schema_version, after.version) == (2, 2)

    def test_the_old_version_is_given(self, store: PersistenceAdapter) -> None:
        seen: list[int | None] = []

        def note(session: SessionState, version: int | None) -> SessionState:
            seen.append(version)
            return session

        manager = PersistenceManager(store, schema_version=3, migrate_session=note)
        for version in (None, 0, 2, 3):
            session = create_session(schema_version=version)
            store.commit(session, expected_version=0)
            manager.load(session.id)

        assert seen == [None, 0, 2]

    def test_the_conversation_stays_part_of_the_session(
        self, store: PersistenceAdapter, manager: PersistenceManager
    ) -> None:
        old(store)
        found = manager.load("s")

        assert found is not None
        assert [line.content for line in found.session.history] == ["hello"]

    def test_a_new_state_may_be_returned(self, store: PersistenceAdapter) -> None:
        old(store)
        manager = PersistenceManager(
            store,
            schema_version=2,
            migrate_session=lambda session, _: session.model_copy(update={"data": {"new": True}}),
        )
        manager.update_collected_data("s", {"a": 1})

        assert stored(store).data == {"new": True, "a": 1}

    def test_processes_that_migrate_one_session_lose_nothing(
        self, store: PersistenceAdapter, manager: PersistenceManager
    ) -> None:
        """What another process migrated and saved meanwhile is not migrated once more."""
        old(store)
        other = PersistenceManager(store, schema_version=2, migrate_session=split_name)
        session = SessionManager(manager, session_id="s")
        session.get_or_create()
        other.update_collected_data("s", {"city": "London"})
        session.set_data({"date": "today"})

        assert stored(store).data == {**MIGRATED, "city": "London", "date": "today"}

    def test_a_turn_is_committed_onto_what_another_process_migrated(
        self, store: PersistenceAdapter, manager: PersistenceManager
    ) -> None:
        old(store)
        session = SessionManager(manager, session_id="s")
        session.load()
        manager.complete_session("s")
        assert session.current is not None
        session.current.data["city"] = "London"
        session.commit()

        assert stored(store).data == {**MIGRATED, "city": "London"}
        assert (stored(store).status, stored(store).schema_version) == ("completed", 2)

    def test_a_version_that_a_turn_sets_itself_is_what_is_saved(self, store: PersistenceAdapter) -> None:
        old(store)
        session = SessionManager(store, session_id="s")
        session.load()
        PersistenceManager(store).complete_session("s")
        assert session.current is not None
        session.current.schema_version = 2
        session.commit()

        assert (stored(store).status, stored(store).schema_version) == ("completed", 2)

    def test_lists_show_sessions_as_they_are_stored(
        self, store: PersistenceAdapter, manager: PersistenceManager
    ) -> None:
        before = old(store, user_id="ann")

        assert manager.find_sessions_by_user_id("ann") == [before]


class TestWithoutAMigrator:
    def test_an_older_session_stays_as_it_is_with_its_version(self, store: PersistenceAdapter) -> None:
        """Nobody has brought it to ours, so a migrator that comes later still learns where it stands."""
        old(store)
        manager = PersistenceManager(store, schema_version=2)
        manager.update_collected_data("s", {"city": "London"})

        assert stored(store).data == {"name": "Ada Lovelace", "city": "London"}
        assert stored(store).schema_version == 1

    def test_a_warning_tells_of_each_version_once(self) -> None:
        store = MemoryAdapter()
        manager = PersistenceManager(store, schema_version=3)
        for number, version in enumerate([None, 1, 1, 2, 3]):
            session = create_session(f"s{number}", data={"secret": "words"}, schema_version=version)
            store.commit(session, expected_version=0)
        with capture_logs() as logs:
            for number in [*range(5), *range(5)]:
                manager.load(f"s{number}")

        assert [(entry["log_level"], entry["stored"], entry["expected"]) for entry in logs] == [
            ("warning", None, 3),
            ("warning", 1, 3),
            ("warning", 2, 3),
        ]
        assert "words" not in str(logs)

    def test_without_a_version_of_ours_nothing_is_compared(self, store: PersistenceAdapter) -> None:
        old(store, 7)
        with capture_logs() as logs:
            PersistenceManager(store).update_collected_data("s", {"a": 1})

        assert stored(store).schema_version == 7
        assert logs == []


class TestNewerSessions:
    """A newer process is at work beside this one: what it wrote is not for us to write over."""

    @pytest.mark.parametrize("migrate", [None, split_name])
    @pytest.mark.parametrize(
        "use",
        [
            lambda manager: manager.find_session_by_id("s"),
            lambda manager: manager.find_active_session_by_user_id("ann"),
            lambda manager: manager.load("s"),
            lambda manager: manager.update_session_status("s", "completed"),
            lambda manager: manager.update_collected_data("s", {"a": 1}),
            lambda manager: manager.save_message(session_id="s", role="user", content="hi"),
            lambda manager: manager.save_turn("s", "t"),
            lambda manager: manager.save_session_state("s", manager.find_sessions_by_user_id("ann")[0]),
            lambda manager: SessionManager(manager, session_id="s").set_data({"a": 1}),
        ],
    )
    def test_one_is_refused_and_nothing_is_written(
        self, store: PersistenceAdapter, use: Callable[[PersistenceManager], object], migrate: Any
    ) -> None:
        before = old(store, 3, user_id="ann")
        with pytest.raises(SessionTooNewError, match=r"version 3.* 2"):
            use(PersistenceManager(store, schema_version=2, migrate_session=migrate))

        assert stored(store) == before

    def test_the_call_may_be_repeated_where_the_new_release_runs(self) -> None:
        assert SessionTooNewError.retryable
        assert issubclass(SessionTooNewError, SessionError)

    def test_a_session_that_is_migrated_under_our_hands_is_not_written_over(
        self, store: PersistenceAdapter
    ) -> None:
        old(store)
        ours = SessionManager(PersistenceManager(store, schema_version=1), session_id="s")
        ours.get_or_create()
        newer = PersistenceManager(store, schema_version=2, migrate_session=split_name)
        newer.update_collected_data("s", {"city": "London"})
        with pytest.raises(SessionTooNewError):
            ours.set_data({"name": "Ada King"})

        assert stored(store).data == {**MIGRATED, "city": "London"}

    def test_it_may_be_listed_and_deleted(self, store: PersistenceAdapter) -> None:
        before = old(store, 3, user_id="ann")
        manager = PersistenceManager(store, schema_version=2, user_id="ann")

        assert manager.find_sessions_by_user_id("ann") == [before]
        assert [message.content for message in manager.find_messages_by_session_id("s")] == ["hello"]
        assert manager.delete_session("s")


class TestMigratorsThatFail:
    def fails(session: SessionState, version: int | None) -> SessionState:  # type: ignore[misc]
        session.data.clear()
        raise ValueError(f"cannot parse {version} secret words")

    def forgets(session: SessionState, version: int | None) -> SessionState:  # type: ignore[misc]
        return None  # type: ignore[return-value]

    def renames(session: SessionState, version: int | None) -> SessionState:  # type: ignore[misc]
        return session.model_copy(update={"id": "other"})

    def breaks(session: SessionState, version: int | None) -> SessionState:  # type: ignore[misc]
        session.data = "secret words"
        return session

    @pytest.mark.parametrize(
        ("migrate", "why"),
        [
            (fails, "raised ValueError"),
            (forgets, "returned NoneType"),
            (renames, "changed id"),
            (breaks, "data"),
        ],
    )
    @pytest.mark.parametrize(
        "use",
        [
            lambda manager: manager.load("s"),
            lambda manager: manager.update_collected_data("s", {"a": 1}),
            lambda manager: manager.save_turn("s", "t"),
            lambda manager: SessionManager(manager, session_id="s").add_message("user", "hi"),
        ],
    )
    def test_the_error_is_clear_and_nothing_is_written(
        self,
        store: PersistenceAdapter,
        use: Callable[[PersistenceManager], object],
        migrate: Any,
        why: str,
    ) -> None:
        before = old(store)
        with pytest.raises(SessionMigrationError) as failure:
            use(PersistenceManager(store, schema_version=2, migrate_session=migrate))

        assert "session 's'" in str(failure.value)
        assert "from schema version 1 to 2" in str(failure.value)
        assert why in str(failure.value)
        assert "secret" not in str(failure.value)
        assert not failure.value.retryable
        assert stored(store) == before

    def test_a_session_that_cannot_be_migrated_may_be_deleted(self, store: PersistenceAdapter) -> None:
        old(store, user_id="ann")
        manager = PersistenceManager(
            store, schema_version=2, migrate_session=TestMigratorsThatFail.fails, user_id="ann"
        )

        assert manager.delete_session("s")

    def test_others_are_not_asked_about(self, store: PersistenceAdapter) -> None:
        """A session of somebody else is refused before the application's code sees it."""
        old(store, user_id="bob")
        manager = PersistenceManager(
            store, schema_version=2, migrate_session=TestMigratorsThatFail.fails, user_id="ann"
        )

        assert manager.find_session_by_id("s") is None
        with pytest.raises(SessionError, match="has no session"):
            manager.load("s")


class TestDeclaring:
    @pytest.mark.parametrize("version", [-1, True, "2", 1.0])
    def test_a_version_is_a_whole_number(self, version: Any) -> None:
        with pytest.raises(InvalidInputError, match="schema_version"):
            PersistenceManager(MemoryAdapter(), schema_version=version)

    def test_a_migrator_needs_a_version(self) -> None:
        with pytest.raises(InvalidInputError, match="schema_version"):
            PersistenceManager(MemoryAdapter(), migrate_session=split_name)

    def test_an_agent_is_told_so_when_it_is_declared(self) -> None:
        with pytest.raises(AgentDefinitionError, match=r"agent 'A'.*schema_version"):
            Agent("A", provider=OfflineProvider(), migrate_session=split_name)


class Person(BaseModel):
    first: str | None = None
    last: str | None = None


agent = Agent(
    "Registry", provider=OfflineProvider(), schema=Person, schema_version=2, migrate_session=split_name
)


class TestAgents:
    def test_an_agents_sessions_are_migrated_by_its_turns(self, store: PersistenceAdapter) -> None:
        old(store)
        response = agent.bind("s", persistence=store).respond("hello", turn_id="t")

        assert response.data == MIGRATED
        assert (stored(store).data, stored(store).schema_version) == (MIGRATED, 2)

    def test_a_manager_brings_its_own(self, store: PersistenceAdapter) -> None:
        old(store)
        agent.bind("s", persistence=PersistenceManager(store)).respond("hello")

        assert stored(store).schema_version == 1

    def test_a_turn_that_was_taken_by_a_newer_process_is_not_taken_again(
        self, store: PersistenceAdapter
    ) -> None:
        session = create_session("s", schema_version=3)
        record = TurnRecord(session_id="s", turn_id="t")
        store.commit(session, expected_version=0, turn=record)
        with pytest.raises(SessionTooNewError):
            agent.bind("s", persistence=store).respond("hello", turn_id="t")

        assert stored(store).version == 1

    def test_the_worker_uses_those_of_its_agent(self, tmp_path: Path) -> None:
        settings = Settings(
            agent=f"{__name__}:agent", database_url=f"sqlite:///{tmp_path}/sessions.db", _env_file=None
        )
        runtime = Runtime(Celery(set_as_current=False), settings)
        with runtime.adapter as store:
            old(store)
            runtime.persistence.save_turn("s", "t")

            assert (stored(store).data, stored(store).schema_version) == (MIGRATED, 2)
        runtime.redis.close()
