"""The pieces of code in pages that are no programs of their own: marked `<!-- snippet -->`, they run here.

Those of one page run one after the other, with the names that the page takes for granted.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship

from examples.custom_adapter import JournalAdapter
from inturn import Agent, Client, TurnContext
from inturn.agent.scripted import ScriptedProvider
from inturn.errors import SessionAccessError, TurnFailedError
from inturn.persistence import MemoryAdapter
from inturn.settings import Settings
from tests.nodes import ROOT
from tests.pages import run, snippets
from tests.servers_opensearch import opensearch
from tests.web import KEYS, Web

DOCS = ROOT / "docs"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the snippets of a page, as `run_page("overlap", client=client)`; gives the names that it sets."""
    monkeypatch.chdir(tmp_path)

    def run_page(page: str, replace: dict[str, str] | None = None, **names: Any) -> dict[str, Any]:
        code = [
            code for language, code in snippets((DOCS / f"{page}.md").read_text()) if language == "python"
        ]
        assert code
        for block in code:
            for old, new in (replace or {}).items():
                block = block.replace(old, new)
            exec(compile(block, f"{page}.md", "exec", dont_inherit=True), names)
        return names

    return run_page


@pytest.mark.process
def test_snippets_of_a_producer(
    run_page: Run,
    client: Client,
    turn_settings: Settings,
    worker_env: dict[str, str],
    start_worker: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_worker()

    run_page("channels", client=client)
    run_page("overlap", client=client)
    run_page("sms", client=client)
    shown: list[str] = []
    earlier = client.respond("user-123", "hello")
    names = run_page(
        "streaming",
        client=client,
        render=shown.append,
        turn_id=earlier.turn_id,
        last_id="",
        session_id="user-123",
    )
    assert shown[-1] == names["handle"].get().message
    assert client.status("sms:+15005550006:+15551230000", "unheard-of") == "unknown"

    assert client.respond("bobs", "hello", user_id="bob").get().message
    agent = Agent("front desk", provider=ScriptedProvider([]))
    bobs = {"session_id": "bobs", "message": "hello"}
    with pytest.raises(SessionAccessError):
        run_page("access", agent=agent, TurnContext=TurnContext, client=client, **bobs)

    with pytest.raises(TurnFailedError):
        client.respond("user-123", "refused").get()
    monkeypatch.setenv("REDIS_URL", worker_env["REDIS_URL"])
    with pytest.raises(TurnFailedError):  # what is tried again fails again
        run_page("dead-letters")


@pytest.mark.process
def test_requests_to_the_web_api(
    tmp_path: Path, start_worker: Callable[..., object], start_web: Callable[..., Web], run_page: Run
) -> None:
    start_worker()
    web = start_web(INTURN_API_KEYS=KEYS)
    commands = [code for language, code in snippets((DOCS / "web.md").read_text()) if language == "sh"]

    assert len(commands) == 6
    key = KEYS.partition(":")[2].partition(",")[0]
    # Who follows the page asks from the same machine, and needs no key until the page comes to it.
    curl = f"""KEY={key}; curl() {{ command curl -fsS -m 60 "$@" -H "Authorization: Bearer $KEY"; }}\n"""
    for code in commands:
        said = run(tmp_path, "sh", "-ec", curl + code.replace("localhost:8000", web.url.partition("//")[2]))
        assert said

    names = run_page("web", jwt=jwt, time=time, secret="a secret of thirty-two bytes, or more")
    assert jwt.decode(names["token"], names["secret"], algorithms=["HS256"])["sub"] == "ada"


class Busy(Exception):
    seconds = 1.0


@pytest.fixture
def my_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pages call `my_package`: the reader's own code."""
    package = types.ModuleType("my_package")
    package.__dict__.update(
        Busy=Busy,
        ModelError=KeyError,
        MyAdapter=JournalAdapter,
        ask=lambda *_, **__: types.SimpleNamespace(data={"message": "hello"}, tokens=3),
    )
    monkeypatch.setitem(sys.modules, "my_package", package)


def test_providers(run_page: Run, my_package: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")

    names = run_page("providers")

    assert Agent("front desk", provider=names["MyProvider"]()).respond("hi").message == "hello"


def test_the_conformance_kit(run_page: Run, my_package: None) -> None:
    kit = run_page("conformance-kit")["TestMyAdapter"]

    assert callable(kit.test_a_turn_is_committed_once)


class Base(DeclarativeBase):
    """The base of the reader's own models."""


@pytest.mark.parametrize(
    "page", ["persistence-mongodb", "persistence-redis", "persistence-sqlalchemy", "custom-adapter"]
)
def test_stores(page: str, run_page: Run, redis_url: str, tmp_path: Path) -> None:
    replace = {
        "redis://127.0.0.1:6379/1": redis_url,
        "postgresql+psycopg://localhost/chat": f"sqlite:///{tmp_path / 'chat.db'}",
    }
    orm = {"Mapped": Mapped, "mapped_column": mapped_column, "relationship": relationship, "foreign": foreign}

    names = run_page(page, replace, Base=Base, **orm)

    if page == "persistence-mongodb":
        names["adapter"].close()  # it connects when it is used
    elif page == "custom-adapter":
        assert names["persistence"].create_session(id="user-123").id == "user-123"
    else:
        names["adapter"].ping()
        names["adapter"].close()


def test_a_store_that_can_be_searched(run_page: Run) -> None:
    with opensearch() as url:
        code = snippets((DOCS / "persistence-opensearch.md").read_text())
        assert len(code) == 2
        names: dict[str, Any] = {}
        exec(code[0][1].replace("opensearch://127.0.0.1:9200", url), names)
        names["adapter"].initialize()
        exec(code[1][1], names)
        names["adapter"].close()


@pytest.mark.parametrize("store_kind", ["postgresql"])
def test_what_is_said_of_postgresql(run_page: Run, store_url: str, store_kind: str) -> None:
    with psycopg.connect(store_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA chat")
    with ConnectionPool(store_url, open=True) as my_pool:
        replace = {
            "postgresql://localhost/chat": store_url,
            '"opensearch://localhost:9200"': "MemoryAdapter()",
        }
        names = run_page("persistence", replace, my_pool=my_pool, MemoryAdapter=MemoryAdapter)
        names["persistence"].create_session(id="user-123")
        names["store"].close()
        with my_pool.connection() as connection:
            for language, code in snippets((DOCS / "retention.md").read_text()):
                assert language == "sql"
                connection.execute(code.encode())
