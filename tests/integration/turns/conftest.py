from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from inturn.settings import Settings, load_settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect

MakeMailbox = Callable[..., Mailbox]


@pytest.fixture
def turn_settings(redis_url: str, key_prefix: str) -> Callable[..., Settings]:
    def make(**overrides: object) -> Settings:
        return load_settings(redis_url=redis_url, key_prefix=key_prefix, **overrides)

    return make


@pytest.fixture
def make_mailbox(turn_settings: Callable[..., Settings]) -> Iterator[MakeMailbox]:
    clients = []

    def make(**overrides: object) -> Mailbox:
        settings = turn_settings(**overrides)
        client = connect(settings)
        clients.append(client)
        return Mailbox(client, settings)

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def mailbox(make_mailbox: MakeMailbox) -> Mailbox:
    return make_mailbox()
