"""deploy/sql/roles.sql on a real server: each role can do its work, and no more."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from inturn.errors import StoreError
from inturn.persistence import MessageQuery, PersistenceAdapter, SessionQuery, open_adapter
from inturn.persistence.adapter import Target
from inturn.persistence.inbox import Inbox
from inturn.session.state import create_message, create_session
from inturn.testing.conformance.base import turn
from tests.roles import ROLES, UrlOf, postgres_with_roles


@pytest.fixture(scope="module")
def url_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UrlOf]:
    with postgres_with_roles(tmp_path_factory.mktemp("roles")) as url_of:
        yield url_of


@pytest.fixture
def owner_url(url_of: UrlOf) -> str:
    return url_of("owner")


@pytest.fixture
def owner(owner_url: str) -> Iterator[PersistenceAdapter]:
    with open_adapter(owner_url) as adapter:
        yield adapter


@pytest.fixture
def session_id(owner: PersistenceAdapter) -> str:
    session = create_session(user_id="ann")
    line = create_message(session.id, "user", "hello")
    owner.commit(session, [line], expected_version=0, turn=turn(session.id, "1"))
    return session.id


@pytest.fixture(params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def store(url_of: UrlOf, role: str) -> Iterator[PersistenceAdapter]:
    """Opened as every process does it: `initialize` finds the tables, and creates nothing."""
    with open_adapter(url_of(role)) as adapter:
        yield adapter


def refused(url: str, statement: str) -> bool:
    """Whether the server says that this user may not."""
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            return True
    return False


def test_all_read(store: PersistenceAdapter, session_id: str) -> None:
    found = store.load(session_id, last_messages=5, turn_id="1")
    assert found is not None
    assert (len(found.messages), found.turn is not None) == (1, True)
    assert store.find_messages(MessageQuery(session_id=session_id)).items
    assert store.find_sessions(SessionQuery(user_id="ann")).items


def test_only_those_who_write_say_anything(store: PersistenceAdapter, role: str, session_id: str) -> None:
    found = store.load(session_id)
    assert found is not None
    line = create_message(session_id, "assistant", "Hello!")

    def say() -> None:
        store.commit(found.session, [line], expected_version=1, turn=turn(session_id, "2"))
        store.commit(create_session(), expected_version=0)

    if role in ("worker", "retention"):
        say()
        return
    with pytest.raises(StoreError):
        say()


def test_retention_and_the_web_delete_and_nobody_else(
    store: PersistenceAdapter, owner: PersistenceAdapter, role: str, session_id: str
) -> None:
    if role in ("producer", "retention"):
        assert store.delete_sessions([Target(session_id, 1)]) == [session_id]
        assert owner.find_messages(MessageQuery(session_id=session_id)).items == []
        return
    with pytest.raises(StoreError):
        store.delete_sessions([Target(session_id, 1)])
    assert owner.load(session_id) is not None


def test_retention_sets_a_status_and_seals_anew(url_of: UrlOf, session_id: str) -> None:
    with open_adapter(url_of("retention")) as store:
        found = store.load(session_id, last_messages=1, turn_id="1")
        assert found is not None
        session = found.session
        session.set_status("abandoned")
        saved = store.commit(session, expected_version=1).session
        sealed = found.messages[0].model_copy(update={"content": "sealed"})

        assert store.rewrite(saved, [sealed], store.find_turns(session_id).items) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE agent_messages SET content = 'never said'",
        "UPDATE agent_messages SET session_id = session_id",
        "DELETE FROM agent_messages",
        "UPDATE agent_turns SET result = '{}'",
        "DELETE FROM agent_turns",
        "TRUNCATE agent_sessions CASCADE",
        "DROP TABLE agent_turns",
        "ALTER TABLE agent_sessions ADD COLUMN extra text",
        "CREATE TABLE mine (id int)",
        "CREATE ROLE another",
        "COPY agent_messages TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/hostname')",
    ],
)
def test_what_nobody_may(url_of: UrlOf, role: str, statement: str, session_id: str) -> None:
    if role == "retention" and statement.startswith(
        ("UPDATE agent_messages SET content", "UPDATE agent_turns")
    ):
        pytest.skip("the rotation of keys seals what is kept anew")
    assert refused(url_of(role), statement)


def test_turns_are_accepted_by_producers_and_workers(url_of: UrlOf, role: str) -> None:
    inbox = Inbox(url_of(role))
    try:
        assert inbox.among(["s"]) == set()
        if role in ("producer", "worker"):
            assert inbox.put("s", f"s:{role}", "{}", ["enqueue", "", "", 0])
            assert inbox.remove("s", [f"s:{role}"]) == 1
            assert refused(url_of(role), "UPDATE agent_inbox SET payload = '{}'")
            return
        with pytest.raises(StoreError):
            inbox.put("s", "s:1", "{}", ["enqueue", "", "", 0])
    finally:
        inbox.close()
