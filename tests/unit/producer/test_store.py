"""The store as the web application uses it: opened when it is there, and never waited for by everybody."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from inturn.errors import StoreUnavailableError
from inturn.persistence import MemoryAdapter
from inturn.session import create_session
from inturn.settings import load_settings
from producer import store as stores
from producer.store import Store
from tests.waiting import wait_until


def test_it_is_opened_when_it_is_first_used_and_again_until_that_works(tmp_path: Path) -> None:
    store = Store(load_settings(database_url=f"sqlite:///{tmp_path}/later/sessions.db"))
    with pytest.raises(StoreUnavailableError), store.use():
        pass
    (tmp_path / "later").mkdir()

    with store.use() as adapter:
        assert adapter.load("s") is None
    store.close()


def test_all_threads_share_one_adapter(tmp_path: Path) -> None:
    store = Store(load_settings(database_url=f"sqlite:///{tmp_path}/sessions.db"))
    seen = []

    def use() -> None:
        with store.use() as adapter:
            seen.append(adapter)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 8
    assert len(set(map(id, seen))) == 1
    store.close()


def test_threads_that_find_no_place_are_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PATIENCE", 0.05)
    store = Store(load_settings(database_url="memory://", database_pool=1))
    with store.use(), pytest.raises(StoreUnavailableError), store.use():
        pass

    with store.use() as adapter:
        adapter.commit(create_session("s"), expected_version=0)


def test_after_somebody_has_waited_in_vain_one_tries_now_and_then_and_the_others_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stores, "PATIENCE", 0.1)
    monkeypatch.setattr(stores, "RETRY_SECONDS", 0.5)
    asked = []
    is_away = True

    def load(self: MemoryAdapter, session_id: str, **_more: object) -> None:
        asked.append(session_id)
        if is_away:
            time.sleep(0.15)
            raise StoreUnavailableError

    monkeypatch.setattr(MemoryAdapter, "load", load)
    store = Store(load_settings(database_url="memory://"))

    def use() -> bool:
        try:
            with store.use() as adapter:
                adapter.load("s")
        except StoreUnavailableError:
            return False
        return True

    assert not any(use() for _ in range(20))
    assert len(asked) == 1
    wait_until(lambda: use() or len(asked) > 1)
    assert not any(use() for _ in range(20))
    assert len(asked) == 2
    is_away = False
    wait_until(use)
    assert all(use() for _ in range(20))


def test_one_lost_connection_refuses_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryAdapter, "load", lambda *_, **__: (_ for _ in ()).throw(StoreUnavailableError))
    store = Store(load_settings(database_url="memory://"))
    with pytest.raises(StoreUnavailableError), store.use() as adapter:
        adapter.load("s")

    with store.use() as adapter:
        adapter.ping()
